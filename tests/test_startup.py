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


def test_the_check_sees_what_is_imported():
    assert "torch" in imported_by("from fade_lens import Fade")
