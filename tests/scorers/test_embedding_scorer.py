"""The embedding scorer: which windows are near to a description, with a stand-in for the model."""

from typing import Any

import numpy as np
import pytest

from fade_lens import Fade, MissingExtraError, Results
from fade_lens.metrics.ranking import auroc, aurocs
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae
from tests.tiny import ANIMALS, COLOURS, VERBS

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(700)
SMALL: dict[str, Any] = {"embedding_texts": 40, "window_tokens": 8}
WORDS = {0: " ".join(ANIMALS), 1: " ".join(COLOURS), 2: " ".join(VERBS)}
"""The stand-in knows texts by their words."""


def scored(descriptions: Any = WORDS, **more: Any) -> Results:
    return Fade(MODEL, SAE, corpus=TEXTS, **SMALL).evaluate(
        descriptions, scorers=("embedding",), progress=False, **more
    )


def test_right_descriptions_are_nearer_without_a_judge(embedding: None, tmp_path: Any) -> None:
    results = scored(nulls=("shuffled",), store=tmp_path / "run")
    frame = results.frame
    assert min(frame["embedding"].tolist()) > 0.7 and min(frame["embedding_low"].tolist()) > 0.5
    assert set(frame["embedding_percentile"]) == {1} and results.run.usage and not results.run.usage.calls
    assert all(0.3 < other < 0.7 for other in frame["embedding_others"])
    assert all(0.25 < (null.metric("embedding").value or 0) < 0.75 for null in results.nulls["shuffled"])
    assert Results.load(results.save(tmp_path / "r.sqlite")).items == results.items
    assert scored(nulls=("shuffled",), store=tmp_path / "run").items == results.items


def test_a_silent_feature_has_its_reason(embedding: None) -> None:
    results = scored({**WORDS, 3: "rivers"})
    reason = results[3].metric("embedding").reason
    assert reason is not None and reason.code == "silent" and results[0].metric("embedding").value is not None


def test_without_the_extra_nothing_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: None)
    from tests.fake_judge import FakeJudge

    with FakeJudge() as server, pytest.raises(MissingExtraError, match="The scorer 'embedding' needs"):
        fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **SMALL)
        fade.evaluate([0, 1], explainer="one-shot", scorers=("embedding",), progress=False)
    assert not server.requests


def test_one_description_alone_has_no_others(embedding: None) -> None:
    assert scored({0: TRUE[0]})[0].metric("embedding").details["others"] is None


def test_many_scorings_are_ranked_as_one() -> None:
    random = np.random.default_rng(0)
    values, positive = random.integers(0, 5, (30, 7)).astype(np.float64), np.arange(30) % 3 == 0
    slow = [auroc(values[positive, at], values[~positive, at]) for at in range(7)]
    assert np.allclose(aurocs(values, positive), slow)
