"""A large run goes block by block, and no number depends on the blocks."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fade_lens import Fade, Judge, Results
from fade_lens.data.descriptions import Description
from fade_lens.runs.blocks import Coming
from fade_lens.runs.kept import KeptResults
from fade_lens.runs.result import Result
from fade_lens.scorers.evidence import RatedEvidence
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

SMALL: dict[str, Any] = {"prompts": 2, "prompt_tokens": 4, "new_tokens": 3, "rated_texts": 30, "synthetic_texts": 5, "factors": (2.0,), "health_texts": 0}  # fmt: skip
MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(120)
DESCRIBED = [Description(index, text, origin) for origin, shift in (("a", 0), ("b", 1)) for index, text in zip((0, 1, 2, 4, 5), [*TRUE.values(), TRUE[0], "verbs that colour"][shift:] + ["of nothing"] * shift, strict=True)]  # fmt: skip
"""Five features, each with two descriptions that stand far apart."""
UNSTEERED = SMALL | {"factors": ()}
GOLD = [(TRUE[0], "the dog and the cat", 2), (TRUE[0], "red", 0)]


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=rule, writer=writer) as running:
        yield running


def run(server: FakeJudge, descriptions: Any = DESCRIBED, settings: Any = SMALL, **asked: Any) -> Results:
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **settings)
    return fade.evaluate(descriptions, progress=False, **asked)


def in_blocks(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Results], size: int = 2) -> Results:
    with monkeypatch.context() as patched:
        patched.setattr("fade_lens.runs.blocks.BLOCK", size)
        return work()


def assert_equal(blocked: Results, whole: Results) -> None:
    """All but what was asked of the judge at what cost, how long it took, and the last digits of what is read of the corpus once more."""
    for one, other in zip([*blocked, *blocked.nulls.get("shuffled", ())], [*whole, *whole.nulls.get("shuffled", ())], strict=True):  # fmt: skip
        assert replace(one, feature=other.feature) == other and one.flags == other.flags
        assert one.usage == other.usage or one.usage.calls == other.usage.calls
        for text, before in zip(one.feature.top, other.feature.top, strict=True):
            assert (text.number, text.tokens) == (before.number, before.tokens)
            assert text.activations[1:] == pytest.approx(before.activations[1:], rel=1e-5, abs=1e-5)
    pd.testing.assert_frame_equal(blocked.frame.drop(columns="judge_cost"), whole.frame.drop(columns="judge_cost"))
    for name in ("gold", "agreement", "second_judge", "n_overflowed", "settings", "held_out"):
        assert getattr(blocked.run, name) == getattr(whole.run, name), name
    assert (blocked.cross_scores is None) == (whole.cross_scores is None)
    if blocked.cross_scores is not None and whole.cross_scores is not None:
        assert blocked.cross_scores.owners == whole.cross_scores.owners
        for name in ("clarity", "responsiveness", "purity"):
            assert np.array_equal(
                getattr(blocked.cross_scores, name), getattr(whole.cross_scores, name), equal_nan=True
            )


def test_a_run_in_blocks_equals_the_whole_one_and_asks_as_much(server: FakeJudge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # fmt: skip
    with FakeJudge(rule=rule, writer=writer) as other:
        second = Judge("other", base_url=other.base_url, api_key="sk-none")
        asked: dict[str, Any] = {"nulls": ("shuffled", "generic"), "repeats": 1, "second_judge": second, "gold": GOLD}
        whole, calls = run(server, **asked), server.requests
        blocked = in_blocks(monkeypatch, lambda: run(server, store=tmp_path, **asked))
        assert server.requests <= 2 * calls
    assert isinstance(whole.items, tuple) and isinstance(blocked.items, KeptResults)
    assert_equal(blocked, whole)
    assert whole.run.agreement and whole.frame["q_value"].notna().any()
    assert blocked.items[3].description == DESCRIBED[3] and len(blocked.of(4)) == 2
    assert {path.name for path in tmp_path.iterdir()} <= {"run.sqlite", "run.sqlite-wal", "run.sqlite-shm"}
    blocked.to_folder(tmp_path)
    again = Results.load(tmp_path)
    assert again == blocked and again.cross_scores is not None
    pd.testing.assert_frame_equal(again.frame, blocked.frame)


def test_a_run_in_parts_is_compared_within_them_in_blocks_too(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("fade_lens.baselines.permutation.MOST", 3)
    monkeypatch.setattr("fade_lens.baselines.permutation.LEAST", 2)
    whole = run(server, settings=UNSTEERED)
    assert_equal(in_blocks(monkeypatch, lambda: run(server, settings=UNSTEERED), 2), whole)
    assert isinstance(whole.items, KeptResults) and whole.cross_scores is None and whole.frame["p_value"].notna().any()


def test_other_scorers_and_held_out_texts_in_blocks(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> Results:
        return run(server, TRUE, UNSTEERED, scorers=("detection", "fade"), held_out=True)

    assert_equal(in_blocks(monkeypatch, work, 1), work())


def test_results_of_blocks_that_are_measured_leave_memory(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    most, keep = list[int](), Coming.keep

    def counted(self: Coming, part: str, number: int, result: Result) -> None:
        gc.collect()
        most.append(sum(type(one) is RatedEvidence for one in gc.get_objects()) - before)
        keep(self, part, number, result)

    gc.collect()
    before = sum(type(one) is RatedEvidence for one in gc.get_objects())
    monkeypatch.setattr(Coming, "keep", counted)
    monkeypatch.setattr("fade_lens.baselines.permutation.MOST", 1)
    in_blocks(monkeypatch, lambda: run(server, TRUE, settings=UNSTEERED), 1)
    assert len(most) == len(TRUE) and max(most) <= 2, "the block's own, and none before it"
