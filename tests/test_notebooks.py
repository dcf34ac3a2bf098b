"""The notebooks run from top to bottom, as they are but for their judge, and are what a reader can take over."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

import fade_lens
from tests.notebook_kernel import EMBEDDED, NOTEBOOKS, Kernel, rule_judge

SWITCH = re.compile(r"^```python\n(model, sae = .+\ncorpus = .+\njudge = .+)\n```$", re.M)
SUBMODULES = {"analysis", "demo", "explainers", "metrics", "neuronpedia", "scorers"}
"""Packages of whose names the README or a docstring of the library tells."""

each = pytest.mark.parametrize("name", NOTEBOOKS)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        yield running


@pytest.mark.real
@pytest.mark.slow
@each
def test_notebook_runs(name: str, kernel: Kernel, tmp_path: Path) -> None:
    with rule_judge() as server:
        judge = f"Judge('rules', base_url={server.base_url!r}, api_key='none')"
        kernel.run(NOTEBOOKS[name], tmp_path, judge, timeout=300)
        asks = any(EMBEDDED in source for source in code(name))
        assert bool(server.requests) == asks, "a notebook asks the judge that is put in its place"


@each
def test_it_claims_something_that_can_be_wrong(name: str) -> None:
    assert any(isinstance(node, ast.Assert) for tree in trees(name) for node in ast.walk(tree))


@each
def test_three_lines_switch_it_to_a_larger_model_and_a_paid_judge(name: str) -> None:
    (lines,) = {found for cell in cells(name, "markdown") for found in SWITCH.findall(cell.source)}
    loaded, corpus, judge = (statement.value for statement in ast.parse(lines).body)
    release, sae = (argument.value for argument in loaded.args)
    known = get_pretrained_saes_directory()[release]
    assert known.model in ("gpt2-small", "gemma-2-2b") and sae in known.saes_map
    assert ast.unparse(corpus.func) == "Corpus.from_hf" and ast.unparse(judge.func) == "Judge"


@each
def test_what_it_uses_of_the_library_is_public(name: str) -> None:
    for node in (node for tree in trees(name) for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and node.module == "fade_lens":
            assert {alias.name for alias in node.names} <= {*fade_lens.__all__, *SUBMODULES}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fade_lens."):
            assert node.module.split(".")[1] in SUBMODULES
            assert not any(part.startswith("_") for part in [*node.module.split("."), *(a.name for a in node.names)])
        elif isinstance(node, ast.Attribute):
            assert not re.match("_(?!_)", node.attr), node.attr


@each
def test_the_file_holds_no_output_and_its_cells_have_names(name: str) -> None:
    cells_of = nbformat.read(NOTEBOOKS[name], as_version=4).cells
    assert [cell.id for cell in cells_of] == [f"cell-{at}" for at in range(len(cells_of))]
    assert not any(cell.outputs or cell.execution_count for cell in cells_of if cell.cell_type == "code")


@each
def test_nothing_runs_in_silence(name: str) -> None:
    assert not any("progress=False" in source for source in code(name))


@pytest.mark.real  # a kernel comes with the extra `dev`
def test_a_kernel_takes_one_notebook_after_the_other_and_knows_nothing_of_the_one_before(
    kernel: Kernel, tmp_path: Path
) -> None:
    first = written(tmp_path / "first.ipynb", "import os\nfound = 3", f"judge = {EMBEDDED!r}\nassert judge == 'me'")
    second = written(tmp_path / "second.ipynb", "from pathlib import Path\nPath('mine').touch()", "found")
    kernel.run(first, tmp_path, "me")
    with pytest.raises(CellExecutionError, match="name 'found' is not defined"):
        kernel.run(second, tmp_path)
    assert (tmp_path / "mine").exists()


def written(path: Path, *sources: str) -> Path:
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def cells(name: str, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(NOTEBOOKS[name], as_version=4).cells if cell.cell_type == kind]


def code(name: str) -> list[str]:
    return [cell.source for cell in cells(name, "code")]


def trees(name: str) -> list[ast.Module]:
    return [ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.M)) for source in code(name)]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
