"""The exercises' checks: they say in words what is wrong, and take every solution that is right."""

import ast
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from tests.notebook_kernel import NOTEBOOKS

CELLS = [cell for cell in nbformat.read(NOTEBOOKS["arena_exercises"], 4).cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    """What the notebook's imports, checks and functions define; no model is loaded and nothing is asked."""
    names: dict[str, Any] = {}
    for cell in CELLS:
        tree = ast.parse(cell.source)
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)]
        exec(compile(tree, "arena_exercises", "exec"), names)
    return names


def test_a_function_that_is_not_filled_in_is_told_kindly_and_breaks_nothing(notebook, capsys) -> None:
    stubs = [name for name, one in notebook.items() if getattr(one, "__doc__", None) and is_stub(name)]
    checks = [name for name in notebook if name.startswith("check_")]
    assert len(stubs) == len(checks) == 8
    for check, stub in zip(checks, stubs, strict=True):
        assert not notebook[check](notebook[stub])
        assert "not yet" in capsys.readouterr().out


def is_stub(name: str) -> bool:
    return any(f"def {name}(" in cell.source and "NotImplementedError\n" in cell.source for cell in CELLS)


def test_each_exercise_is_followed_by_its_folded_solution() -> None:
    places = [at for at, cell in enumerate(CELLS) if "raise NotImplementedError\n" in cell.source]
    for at in places:
        assert CELLS[at + 1].metadata["tags"] == ["solution"] and CELLS[at + 1].metadata["jupyter"]["source_hidden"]
        check = CELLS[at].source.splitlines()[-1].split("(")[0]
        assert f"assert {check}(" in CELLS[at + 1].source


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


WRONG = [
    ("check_frame", lambda ds: [d.text for d in ds], "give a DataFrame"),
    ("check_frame", lambda ds: pd.DataFrame({"description": [d.text for d in ds], "words": 1, "quotes": True}), "index"),
    ("check_frame", lambda ds: pd.DataFrame({"description": [d.text for d in ds]}), "no column 'words'"),
    ("check_frame", lambda ds: pd.DataFrame({"description": [d.text for d in ds], "words": [len(d.text) for d in ds], "quotes": True}, index=[d.index for d in ds]), "into characters"),
    ("check_cosines", lambda rows, i: rows @ rows[i], "divide by the lengths"),
    ("check_cosines", lambda rows, i: torch.tensor([abs(cosine(row, rows[i])) for row in rows]), "keep the sign"),
    ("check_cosines", lambda rows, i: cosine(rows[0], rows[i]), "one number a direction"),
    ("check_within", lambda rows, some: np.mean([cosine(rows[a], rows[b]) for a in some for b in some]), "with itself"),
    ("check_prompt", lambda d, texts: f"Description: {d}\n" + "\n".join(f"{n}. {t}" for n, t in enumerate(texts, 1)) + "\nor none", "line break"),
    ("check_prompt", lambda d, texts: f"Description: {d}\n" + "\n".join(texts), "number the texts"),
    ("check_prompt", lambda d, texts: f"{d}: {texts}", "a line of its own"),
    ("check_parse", lambda said, n: [str(at) in said for at in range(1, n + 1)], "give None"),
    ("check_parse", lambda said, n: [True], "each of the 3 texts"),
    ("check_parse", lambda said, n: None, "should be"),
    ("check_accuracy", lambda said, truth: np.mean(np.array(said) == np.array(truth)), "understood nothing"),
    ("check_interval", lambda a, b: (np.mean(a) - np.mean(b), np.mean(a) - np.mean(b) - 0.1, np.mean(a) - np.mean(b) + 0.1), "the two lists apart"),
    ("check_interval", lambda a, b: (np.mean(a - b), np.mean(a - b) - 1e-4, np.mean(a - b) + 1e-4), "too narrow"),
    ("check_put_in", lambda resid, at, way, scale: None, "returns nothing changes nothing"),
    ("check_put_in", lambda resid, at, way, scale: resid + scale * way / way.norm(), "only position 3"),
    ("check_put_in", lambda resid, at, way, scale: put(resid, at, resid[:, at] + scale * way / way.norm()), "do not add"),
    ("check_put_in", lambda resid, at, way, scale: put(resid, at, scale * way), "its length"),
    ("check_put_in", lambda resid, at, way, scale: put(resid, at, scale * way / way.norm(), copied=False), "a copy"),
    ("check_accuracy", lambda said: 1, "it fails with TypeError"),
]  # fmt: skip
"""What one may write, and what the check should say to it."""


def put(resid, at, what, *, copied=True):
    changed = resid.clone() if copied else resid
    changed[:, at] = what
    return changed


@pytest.mark.parametrize(("check", "attempt", "hint"), WRONG, ids=lambda one: one if isinstance(one, str) else "")
def test_a_wrong_attempt_gets_a_hint_that_fits(notebook, capsys, check, attempt, hint) -> None:
    assert not notebook[check](attempt)
    assert hint in capsys.readouterr().out


def test_other_ways_to_be_right_are_right(notebook) -> None:
    """A loop in place of a product, an array in place of a tensor, another order of work."""
    assert notebook["check_cosines"](lambda rows, i: np.array([cosine(row, rows[i]) for row in rows]))
    pairs = lambda rows, some: np.mean([cosine(rows[a], rows[b]) for a in some for b in some if a < b])  # noqa: E731
    assert notebook["check_within"](pairs)
    assert notebook["check_parse"](lambda said, n: notebook["solved_parse"](said, n))
    assert notebook["check_accuracy"](lambda said, truth: sum(np.mean([s == t for s, t in zip(said, truth, strict=True) if t is kind]) for kind in (True, False)) / 2)  # fmt: skip
