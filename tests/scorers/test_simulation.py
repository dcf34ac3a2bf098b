"""Simulation of planted latents: tokens that a description says are active, beside those that are."""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fade_lens import Fade, Results
from fade_lens._util.errors import JudgeError
from fade_lens.judge import Judge
from fade_lens.llm.chat import Answer
from fade_lens.metrics.simulated import pooled
from fade_lens.scorers.simulation import predicted
from tests.fake_judge import FakeJudge
from tests.planted import SHUFFLED, TRUE, WORDS_OF, judge_of, natural_texts, planted_model, planted_sae

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(700)
SMALL: dict[str, Any] = {"simulation_texts": 16, "window_tokens": 8}


def simulate(body: dict[str, Any]) -> str | None:
    found = re.fullmatch(r"<description>\n(.*)\n</description>\n\n<tokens>\n(.*)\n</tokens>", body["messages"][-1]["content"], re.S)  # fmt: skip
    if found is None:
        return None
    tokens = [line.split("\t")[1].strip("' ") for line in found[2].split("\n")]
    active = [at for at, token in enumerate(tokens, 1) if token in WORDS_OF.get(found[1], set())]
    return json.dumps({"active": [{"token": at, "strength": 8} for at in active]})


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(says=simulate) as running:
        yield running


def scored(judge: Judge, descriptions: Any = TRUE, **more: Any) -> Results:
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge, **SMALL)
    return fade.evaluate(descriptions, scorers=("simulation",), progress=False, **more)


def test_right_descriptions_follow_the_activations_and_swapped_ones_do_not(server: FakeJudge, tmp_path: Any) -> None:
    results = scored(judge_of(server))
    assert all((r.metric("simulation").value or 0) > 0.95 for r in results)
    assert set(results.frame["simulation_false_alarms"]) == {0} and set(results.frame["simulation_unanswered"]) == {0}
    assert Results.load(results.save(tmp_path / "r.json.gz")).items == results.items
    for r in scored(judge_of(server), SHUFFLED):
        low, high = r.metric("simulation").interval or (1, 1)
        assert low <= 0.05 and high < 0.9


def test_the_estimate_is_what_is_asked_and_nothing_is_asked_twice(server: FakeJudge, tmp_path: Any) -> None:
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **SMALL)
    whole = scored(judge_of(server))
    assert fade.estimate(TRUE, scorers=("simulation",)).calls == 3 * 16 == server.requests - 2
    first = Judge("planted", base_url=server.base_url, api_key="sk-made-up", max_calls=9, concurrency=1)
    with pytest.raises(JudgeError):
        scored(first, store=tmp_path)
    before = server.requests
    assert [r.metrics for r in scored(judge_of(server), store=tmp_path)] == [r.metrics for r in whole]
    assert 0 < server.requests - before < 48


def test_the_same_everywhere_is_nothing_and_told(server: FakeJudge) -> None:
    server.says = lambda body: None if simulate(body) is None else '{"active": []}'
    result = scored(judge_of(server), {0: TRUE[0], 3: "rivers"})
    assert result[0].metric("simulation").value == 0 and "constant" in [flag.kind for flag in result[0].flags]
    reason = result[3].metric("simulation").reason
    assert reason is not None and reason.code == "silent"


def test_answers_are_read_strictly() -> None:
    def read(content: str) -> tuple[float, ...] | None:
        return predicted(Answer(content=content), 3)

    assert read('{"active": [{"token": 2, "strength": 7}]}') == (0, 7, 0) and read('{"active": []}') == (0, 0, 0)
    for wrong in ('{"active": [{"token": 4, "strength": 7}]}', '{"active": [{"token": 1, "strength": 11}]}', '{"active": [1]}', "none"):  # fmt: skip
        assert read(wrong) is None, wrong


def test_the_correlation_is_that_of_all_tokens_together() -> None:
    random = np.random.default_rng(0)
    texts = [(x := random.random(n), x + random.random(n)) for n in (5, 9, 30)]
    value, (low, high) = pooled(texts, np.ones(3), 0)
    x, y = (np.concatenate(side) for side in zip(*texts, strict=True))
    together = np.corrcoef(x, y)[0, 1]
    assert value == pytest.approx(together) and low <= value <= high
