"""A large run goes block by block, and no number depends on the blocks."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fade_lens import Fade, Judge, Results
from fade_lens.data.descriptions import Description
from fade_lens.runs.kept import KeptResults
from fade_lens.runs.result import Result
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

SMALL: dict[str, Any] = {"prompts": 6, "prompt_tokens": 4, "new_tokens": 4, "rated_texts": 60, "synthetic_texts": 8, "factors": (1.0, 2.0)}  # fmt: skip
MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(200)
DESCRIBED = [Description(index, text, origin) for origin, shift in (("a", 0), ("b", 1)) for index, text in zip((0, 1, 2, 4, 5), [*TRUE.values(), TRUE[0], "verbs that colour"][shift:] + ["of nothing"] * shift, strict=True)]  # fmt: skip
"""Five features, each with two descriptions that stand far apart."""
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
    """All but what was asked of the judge at what cost, and how long it took."""
    assert blocked.items == whole.items and blocked.nulls == whole.nulls
    costs = ["judge_calls", "judge_cost"]
    pd.testing.assert_frame_equal(blocked.frame.drop(columns=costs), whole.frame.drop(columns=costs))
    assert [one.flags for one in blocked] == [one.flags for one in whole]
    assert [one.usage and one.usage.calls for one in blocked] == [one.usage and one.usage.calls for one in whole]
    for name in ("gold", "agreement", "second_judge", "n_overflowed", "settings", "held_out"):
        assert getattr(blocked.run, name) == getattr(whole.run, name), name
    assert (blocked.cross_scores is None) == (whole.cross_scores is None)
    if blocked.cross_scores is not None and whole.cross_scores is not None:
        assert blocked.cross_scores.owners == whole.cross_scores.owners
        for name in ("clarity", "responsiveness", "purity"):
            assert np.array_equal(
                getattr(blocked.cross_scores, name), getattr(whole.cross_scores, name), equal_nan=True
            )


def test_a_run_in_blocks_equals_the_whole_one(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeJudge(rule=rule, writer=writer) as other:
        asked: dict[str, Any] = {"nulls": ("shuffled", "generic"), "repeats": 1, "second_judge": Judge("other", base_url=other.base_url, api_key="sk-none"), "gold": GOLD}  # fmt: skip
        whole = run(server, **asked)
        blocked = in_blocks(monkeypatch, lambda: run(server, **asked))
    assert isinstance(whole.items, tuple) and isinstance(blocked.items, KeptResults)
    assert_equal(blocked, whole)
    assert whole.run.agreement and whole.frame["q_value"].notna().any()
    assert blocked.items[3].description == DESCRIBED[3] and len(blocked.of(4)) == 2


def test_a_run_in_parts_is_compared_within_them_in_blocks_too(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("fade_lens.baselines.permutation.MOST", 4)
    monkeypatch.setattr("fade_lens.baselines.permutation.LEAST", 2)
    whole = run(server, factors := DESCRIBED, SMALL | {"factors": ()})
    assert_equal(in_blocks(monkeypatch, lambda: run(server, factors, SMALL | {"factors": ()})), whole)
    assert whole.cross_scores is None and whole.frame["p_value"].notna().any()


def test_other_scorers_and_held_out_texts_in_blocks(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> Results:
        return run(server, TRUE, SMALL | {"factors": ()}, scorers=("detection", "fuzzing", "fade"), held_out=True)

    assert_equal(in_blocks(monkeypatch, work, 1), work())


def test_nothing_is_asked_twice_and_a_run_goes_on_in_other_blocks(server: FakeJudge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # fmt: skip
    asked: dict[str, Any] = {"nulls": ("shuffled",)}
    whole, calls = run(server, **asked), server.requests
    blocked = in_blocks(monkeypatch, lambda: run(server, store=tmp_path, **asked), 1)
    assert server.requests - calls <= calls, "as many questions as without blocks"
    calls = server.requests
    again = run(server, store=tmp_path, **asked)
    assert server.requests <= calls + 2 and again.items == blocked.items == whole.items


def test_blocks_that_are_measured_leave_memory_and_no_file_behind(server: FakeJudge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # fmt: skip
    def held() -> int:
        gc.collect()
        return sum(type(one) is Result for one in gc.get_objects())

    before = held()
    blocked = in_blocks(monkeypatch, lambda: run(server, settings=SMALL | {"factors": ()}, store=tmp_path), 1)
    assert held() <= before and {path.name for path in tmp_path.iterdir()} <= {"run.sqlite", "run.sqlite-wal", "run.sqlite-shm"}  # fmt: skip
    blocked.to_folder(tmp_path)
    again = Results.load(tmp_path)
    assert again == blocked and again.cross_scores is not None
    pd.testing.assert_frame_equal(again.frame, blocked.frame)
