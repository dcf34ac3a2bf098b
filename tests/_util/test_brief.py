"""What results show of themselves where no page can be shown: a few lines, however much they hold."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fade_lens
from fade_lens import compare, neuronpedia
from fade_lens.analysis.audit import audit
from fade_lens.analysis.latent_map import LatentMap
from fade_lens.explainers.table import Explanations
from fade_lens.neuronpedia.frames import frame
from fade_lens.neuronpedia.records import Imported, Row
from fade_lens.runs.results import Results
from fade_lens.scorers.base import Scored
from fade_lens.subject.tokens import TokenizedTexts
from tests.explained import made_up_explained
from tests.made_up import HOSTILE, made_up_notes, made_up_result, made_up_results, with_cross

SETTINGS = re.compile(r"Settings$")
MUCH = re.compile(r"(tuple|list)\[[^]]*\.\.\.|Mapping|Sequence|ndarray|DataFrame|dict\[|list\[")


def short(value: Any) -> bool:
    told = repr(value)
    return len(told) <= 1000 and len(told.splitlines()) <= 12 and (told.isprintable() or "\n" in told)


def inside(value: Any, depth: int = 0) -> Iterator[Any]:
    """A value and the values that it holds, a few of each kind."""
    yield value
    if depth < 5:
        parts = [getattr(value, f.name) for f in fields(value)] if is_dataclass(value) else []
        parts += (
            list(value)[:3] if isinstance(value, tuple) else list(value.values())[:9] if isinstance(value, dict) else []
        )
        for part in parts:
            if is_dataclass(part) or isinstance(part, tuple | dict):
                yield from (one for one in inside(part, depth + 1) if is_dataclass(one))


@pytest.mark.parametrize("hostile", [False, True])
def test_results_and_all_that_is_in_them_are_a_few_lines(hostile):
    runs = [with_cross(made_up_results(16, hostile=hostile)), made_up_explained(hostile), Results(())]
    shown = [*runs, runs[0].table(), made_up_notes(runs[0], hostile), runs[1].without[0], runs[1].frame.attrs]
    for value in (one for run in shown for one in inside(run)):
        assert short(value), f"{type(value).__name__}: {len(repr(value))} characters"
    one = made_up_result("rough", text="x" * 100_000)
    assert short(one) and short(one.description) and short(Results((one,) * 1000))
    for word in ("holds", "Clarity is 0.92 (0.81 to 0.98)", "Purity is", "Faithfulness is"):
        assert word in repr(runs[0].items[0])
    assert "16 descriptions: fails" in repr(runs[0])


def test_audits_comparisons_imports_and_other_results_are_a_few_lines():
    run = made_up_results(16)
    rows = tuple(Row(at, HOSTILE[at % 6]) for at in range(500))
    imported = Imported(rows=rows, complete=True)
    other = replace(run, items=run.items[:9])
    table = pd.DataFrame({"sae": ["a"] * 3, "index": range(3)})
    tokens = TokenizedTexts(np.arange(99), np.arange(100), np.zeros(99, bool), ("x",) * 99, np.arange(99))
    found = [
        audit(neuronpedia.flags(frame(imported)), run),
        compare(run, other),
        imported,
        tokens,
        Explanations(made_up_explained().without * 300),
        LatentMap(table, table, table, failed={"b": "x" * 3000}),
        fade_lens.Prompts(),
    ]
    for value in found:
        assert short(value), repr(value)[:2000]


def dataclasses_of_the_package() -> dict[str, list[type]]:
    found: dict[str, list[type]] = {}
    for module in pkgutil.walk_packages(fade_lens.__path__, "fade_lens."):
        if not re.search(r"\.(cli|demo|report)\b", module.name):
            for name, one in vars(importlib.import_module(module.name)).items():
                if isinstance(one, type) and is_dataclass(one) and one.__module__ == module.name:
                    found.setdefault(name, []).append(one)
    return found


def test_every_class_that_results_lead_to_shows_itself_in_a_few_lines():
    known = dataclasses_of_the_package()
    roots = ("Results", "Explanations", "Look", "Health", "Release", "LatentMap", "Audit", "SelfExplanations", "Comparison", "Imported", "Causes")  # fmt: skip
    todo, seen = [one for name in roots for one in known[name]], set[type]()
    todo += [one for some in known.values() for one in some if issubclass(one, Scored)]
    while todo:
        if (one := todo.pop()) not in seen and not SETTINGS.search(one.__name__):
            seen.add(one)
            names = {name for f in fields(one) for name in re.findall(r"\w+", str(f.type))}
            todo += [other for name in names for other in known.get(name, [])]
    made = [one for one in seen if inspect.unwrap(one.__repr__).__code__.co_filename == "<string>"]  # by `dataclass`
    much = {one.__name__ for one in made if any(MUCH.search(str(f.type)) for f in fields(one))}
    assert len(seen) > 40 and much == set()


def test_scores_of_ones_own_are_a_few_lines_too():
    @dataclass(frozen=True)
    class Own(Scored):
        texts: tuple[str, ...] = ()

    assert repr(Own(("a long text",) * 1000)) == "Own(texts=<1000 str>)" and repr(Own()) == "Own()"
