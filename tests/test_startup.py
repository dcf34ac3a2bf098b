"""Importing the package and asking for help bring in nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "transformer_lens", "sae_lens", "openai", "pandas", "scipy", "plotly", "datasets")
NUMPY_TOO = (*HEAVY, "numpy")


def imported_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after some code, whatever way the code ends."""
    shown = (
        "import sys, contextlib, io\n"
        f"with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n    {code}\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    return set(subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package():
    assert not imported_by("import fade_lens") & set(NUMPY_TOO)


@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "--help"], ["demo", "--help"]])
def test_asking_for_help(arguments):
    code = f"sys.argv[1:] = {arguments!r}; from fade_lens.cli import main; main()"
    assert not imported_by(code) & set(HEAVY)


@pytest.mark.parametrize("option", ["--descriptions", "--features"])
def test_bad_input_is_told_before_torch_is_there(option, tmp_path):
    (tmp_path / "empty.csv").touch()
    value = {"--descriptions": str(tmp_path / "empty.csv"), "--features": "x"}[option]
    command = "evaluate" if option == "--descriptions" else "explain"
    subject = [
        "--model",
        "demo",
        "--sae",
        "demo",
        "--corpus",
        "demo",
        "--judge",
        "demo",
        "--out",
        str(tmp_path / "run"),
    ]
    code = f"sys.argv[1:] = {[command, *subject, option, value]!r}; from fade_lens.cli import main; main()"
    assert not imported_by(code) & {"torch", "transformer_lens", "sae_lens"}


def test_runs_are_read_and_bad_paths_told_without_torch(tmp_path):
    from fade_lens.runs.store import RunStore

    with RunStore(tmp_path / "run") as store:
        store.put("k", {"kind": "write", "messages": [{"role": "user", "content": "write"}]}, {"content": "a text"})
    d = str(tmp_path / "d.json")
    (tmp_path / "d.json").write_text('{"0": "x"}')
    judged = ["--model", "gpt2", "--corpus", d, "--judge", "openai:x", "--out", str(tmp_path / "o")]
    commands = [
        ["--version"], ["judge", "log", str(tmp_path / "run"), "--full"], ["compare", d, d], ["sanity", d],
        ["evaluate", *judged, "--descriptions", d, "--sae", str(tmp_path)],
        ["evaluate", *judged, "--descriptions", d, "--config", d],
        ["audit", *judged, "--sae", "demo", "--neuronpedia", str(tmp_path / "no.csv")],
        ["health", "--model", "gpt2", "--corpus", d, "--sae", str(tmp_path)],
        ["fires", "a text", "--model", "gpt2", "--sae", str(tmp_path)],
        ["evaluate", *judged, "--descriptions", d, "--hook", "h", "--gold", str(tmp_path / "no.csv")],
    ]  # fmt: skip
    lines = ["from fade_lens.cli import main"]
    for command in commands:
        lines += [f"sys.argv[1:] = {command!r}", "with contextlib.suppress(SystemExit): main()"]
    assert not imported_by("\n    ".join(lines)) & {"torch", "transformer_lens", "sae_lens", "transformers"}


def test_the_check_sees_what_is_imported():
    assert "torch" in imported_by("from fade_lens import Fade")
