"""Activations that a user brings are used as they are, once they fit the model."""

from typing import Any

import numpy as np
import pytest

from fade_lens import Fade, InputError, StoreError, Subject
from fade_lens.evidence.windows import Draw, Evidence
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

MODEL, SAE, TEXTS = planted_model(), planted_sae(), [*natural_texts(300), ""]
OWN = Subject(MODEL, SAE, TEXTS, (0, 1, 2)).activations
SMALL: dict[str, Any] = {"factors": (), "rated_texts": 60, "synthetic_texts": 10}


def subject_of(activations: Any, indices: tuple[int, ...] = (0, 1, 2)) -> Subject:
    return Subject(MODEL, SAE, TEXTS, indices, activations=activations)


def test_a_mapping_a_function_or_an_earlier_run_stand_for_the_pass(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeJudge(rule=rule, writer=writer) as server:
        fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **SMALL)
        before = fade.evaluate(TRUE, store=tmp_path / "run", progress=False)
        passes: list[int] = []
        from fade_lens.subject import subject as where

        whole = where.max_activations
        monkeypatch.setattr(where, "max_activations", lambda *a, **k: passes.append(len(a[2])) or whole(*a, **k))
        for given in ({i: OWN.values[:, i].tolist() for i in TRUE}, lambda i: OWN.values[:, i], tmp_path / "run"):
            fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), activations=given, **SMALL)
            results = fade.evaluate(TRUE, progress=False)
            assert [r.metrics for r in results] == [r.metrics for r in before]
            assert np.isnan(results[0].feature.firing_rate) and results[0].feature.top == before[0].feature.top
            assert results.run.features.identity["activations"] == "given"
        assert max(passes) < len(TEXTS), "only texts that the judge wrote, and none of the corpus"
    with pytest.raises(StoreError, match="has not the activations of all 1 features"):
        Fade(MODEL, SAE, corpus=TEXTS, activations=tmp_path / "run").summaries([5])
    with pytest.raises(StoreError, match="holds no run store"):
        Fade(MODEL, SAE, corpus=TEXTS, activations=tmp_path / "none").summaries([0])


def test_activations_of_half_precision_fit() -> None:
    subject_of({index: OWN.values[:, index].astype(np.float16) for index in TRUE}).observe()


def test_windows_are_found_without_positions() -> None:
    given = Evidence(subject_of({i: OWN.values[:, i] for i in range(3)}))
    assert given.active("show", Draw(6)) == Evidence(Subject(MODEL, SAE, TEXTS, (0, 1, 2))).active("show", Draw(6))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda values: values * 1.1, r"of feature \d do not fit the model: on text \d+ \('.*'\) they have \S+ and the model \S+;"),
        (lambda values: np.roll(values, 1), "do not fit the model"),
        (lambda values: values[:-1], r"of feature 0 have shape \(300,\); give one number for each of the 301 texts"),
        (lambda values: np.where(values > 0, np.inf, values), "feature 0 hold an infinite number"),
        (lambda values: ["a"] * len(values), "feature 0 are no numbers"),
    ],
)  # fmt: skip
def test_activations_that_do_not_fit_are_told_before_they_are_used(change: Any, told: str) -> None:
    subject = subject_of({i: change(OWN.values[:, i]) for i in range(3)})
    with pytest.raises(InputError, match=told):
        subject.observe()


def test_a_feature_without_activations_is_told() -> None:
    with pytest.raises(InputError, match="activations has no feature 2"):
        subject_of({0: OWN.values[:, 0], 1: OWN.values[:, 1]}).observe()
