"""Each package imports what stands below it, never above; each public name stands in one list."""

import ast
from collections.abc import Iterator
from pathlib import Path

import fade_lens

PACKAGE = Path(fade_lens.__file__).parent
ROOMS = (
    "cli", "demo", "report", "analysis", "runs", "neuronpedia", "baselines", "explainers", "scorers", "evidence", "judge", "llm",
    "generation", "subject", "data", "metrics", "_util",
)  # fmt: skip
"""From the top down."""
SHOWN_LATE = {
    "runs/results.py": {"report", "analysis"},
    "runs/look.py": {"report"},
    "runs/fires.py": {"report"},
    "analysis/compare.py": {"report"},
}
"""Convenience methods of results (`plot`, `table`, `to_html`, `summary`) import what shows them when they are called."""


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The rooms that a module imports from, and whether that is at its top level and when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    now = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "fade_lens" else [node.module]
            )
            names = whole
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("fade_lens."):
                yield name.split(".")[1], id(node) in now


def test_every_import_goes_down() -> None:
    wrong: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        room = place.split("/")[0]
        if "/" not in place:
            continue
        assert room in ROOMS, f"{place}: a package that no list of rooms names"
        for other, at_once in imports(path):
            above = ROOMS.index(other) < ROOMS.index(room)
            if above and (at_once or other not in SHOWN_LATE.get(place, ())):
                wrong.append(f"{place} imports from {other}")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_the_check_sees_imports_that_go_up(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text(
        "import fade_lens.cli\nfrom fade_lens import report\ndef f():\n    from fade_lens.runs.fade import Fade\n"
    )
    assert sorted(imports(module)) == [("cli", True), ("report", True), ("runs", False)]


def test_public_names_are_there_and_say_what_they_are() -> None:
    for name in fade_lens.__all__:
        assert (getattr(fade_lens, name).__doc__ or "").strip(), name


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
