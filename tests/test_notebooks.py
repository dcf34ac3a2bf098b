"""The notebooks run from top to bottom, as they are but for their judge."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.fake_judge import FakeJudge

THINGS = ("day", "book", "plan", "house", "friend", "idea", "year", "car", "story", "job")
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
EMBEDDED = "Judge.local(demo.judge_gguf())"
"""Minutes of work for the embedded judge, which `tests/demo` and `tests/llm/test_local.py` try; here one that goes by rules answers."""


def rule(concept: str, text: str) -> int:
    """2 where the quoted word is in the text."""
    return 2 * (word_of(concept) in text.lower().split())


def writer(concept: str, variation: int) -> list[str]:
    """Ten texts with the quoted word."""
    return [f"It was a {word_of(concept)} {thing} number {variation}." for thing in THINGS]


def word_of(concept: str) -> str:
    """The quoted word, or the last one."""
    return concept.split('"')[1] if '"' in concept else concept.split()[-1]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    with FakeJudge(rule=rule, writer=writer) as server:
        for cell in notebook.cells:
            cell.source = cell.source.replace(EMBEDDED, f"Judge('rules', base_url={server.base_url!r}, api_key='none')")
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        )
        client.execute()
        assert server.requests, "the notebook asks the judge that is put in its place"
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any('the word "new"' in output.get("data", {}).get("text/plain", "") for output in shown)


def test_there_are_notebooks():
    assert NOTEBOOKS
