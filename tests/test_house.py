"""Each package imports what stands below it, never above; each public name stands in one list; tests lie where their package does."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fade_lens

PACKAGE, TESTS = Path(fade_lens.__file__).parent, Path(__file__).parent
LINES = 350
"""Of a module's code at most: docstrings, comments and blank lines are not counted."""
ROOMS = (
    "cli", "demo", "report", "analysis", "runs", "neuronpedia", "baselines", "explainers", "scorers", "evidence", "judge", "llm",
    "generation", "subject", "data", "metrics", "_util",
)  # fmt: skip
"""From the top down."""
SHOWN_LATE = {
    "runs/results.py": {"report", "analysis"},
    "runs/result.py": {"report"},
    "runs/look.py": {"report"},
    "runs/fires.py": {"report"},
    "runs/health.py": {"report"},
    "analysis/by_negative.py": {"report"},
    "runs/patchscopes.py": {"report"},
    "analysis/latent_map.py": {"report"},
    "analysis/compare.py": {"report"},
    "analysis/release.py": {"report"},
    "analysis/polysemanticity.py": {"report"},
    "explainers/base.py": {"report"},
    "explainers/table.py": {"report"},
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


def code_lines(path: Path) -> int:
    """Lines that are neither blank nor a comment, nor of a text that stands by itself, as docstrings do."""
    text = path.read_text(encoding="utf-8")
    said = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    return sum(bool(line) and not line.startswith("#") and number not in said for number, line in lines)


def test_no_module_is_long() -> None:
    lengths = {path.relative_to(PACKAGE).as_posix(): code_lines(path) for path in PACKAGE.rglob("*.py")}
    assert not {name: n for name, n in lengths.items() if n > LINES}


def test_every_package_has_its_tests_in_a_folder_of_its_name() -> None:
    modules = sorted(TESTS.rglob("test_*.py"))
    folders = {path.relative_to(TESTS).parts[0] for path in modules if path.parent != TESTS}
    assert folders == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert Counter(path.name for path in modules).most_common(1)[0][1] == 1, "a name says which tests"


def private(path: Path) -> Iterator[str]:
    """The private names of other modules and objects that a test touches."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fade_lens"):
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))
        elif isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "object", "delattr"):
            yield from (str(a.value).split(".")[-1] for a in node.args[:2] if isinstance(a, ast.Constant))


def test_no_test_touches_a_private_name() -> None:
    # Public all the same: of notebooks, of `os`, of what torch documents for tensors of one's own.
    shown = ("_repr_html_", "_exit", "_make_wrapper_subclass")
    found = [
        f"{path.relative_to(TESTS)}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        if "benchmarks" not in path.parts
        for name in private(path)
        if re.fullmatch("_[a-z]+[a-z_]*", name) and name not in shown
    ]
    assert not found, "\n".join(found)


def test_no_test_needs_a_benchmark() -> None:
    needed = re.compile("(from|import) tests.benchmarks")
    tests = (path for path in TESTS.rglob("*.py") if "benchmarks" not in path.parts)
    assert not [path.name for path in tests if needed.search(path.read_text(encoding="utf-8"))]


def test_the_check_sees_private_names(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text(
        "from fade_lens._util import grid\nfrom fade_lens.llm.local import _lock\nmonkeypatch.setattr(a, '_b', 1)\na._c\nself._d"
    )
    assert {"_lock", "_b", "_c"} <= set(private(module)) and "_d" not in set(private(module))
