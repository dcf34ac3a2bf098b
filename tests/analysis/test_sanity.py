"""The missing-labels and extra-labels tests, and planted truth."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fade_lens import Judge
from fade_lens._util.errors import InputError
from fade_lens._util.reasons import Reason
from fade_lens.analysis import sanity
from fade_lens.analysis.planted import (
    CLASSES,
    SETTINGS,
    PlantedRule,
    class_tokens,
    embeddings,
    planted,
    separators,
)
from fade_lens.cli import app
from fade_lens.metrics.labelled import LabelledTexts
from fade_lens.metrics.metric import Metric
from fade_lens.runs.results import Results
from fade_lens.scorers.evidence import RatedEvidence, RatedText
from tests.made_up import made_up_results
from tests.tiny import OTHERS, tiny_bridge, tiny_model


def by_test(checks) -> dict[tuple[str, str], sanity.Check]:
    return {(check.metric.split(" (")[0], check.test): check for check in checks}


# --- Labels ---------------------------------------------------------------------------------------------------------------------


def test_which_scores_notice_on_an_ideal_feature():
    """As in the paper for the same questions: AUROC and balanced accuracy of concept texts miss dropped labels, the others nothing."""
    found = by_test(sanity.simulated())
    failed = {pair for pair, check in found.items() if not check.passed}
    assert failed == {("AUROC", "missing labels"), ("balanced accuracy", "missing labels")}
    assert len(found) == 2 * len(sanity.METRICS)


@pytest.mark.parametrize(
    ("metric", "frequency", "missing", "extra"),
    [
        # Printed by the paper's own code for its inverse AUC and inverse balanced accuracy, IoU-like values by hand.
        ("AUROC (Clarity, Responsiveness)", 0.1, 0.0263, 0.25),
        ("AUROC (Clarity, Responsiveness)", 0.01, 0.0025, 0.25),
        ("balanced accuracy", 0.01, 0.0025, 0.25),
        ("correlation", 0.01, 0.1474, 0.1482),
        ("IoU", 0.01, 0.5, 0.5),
        ("best F1", 0.01, 1 / 3, 1 / 3),
    ],
)
def test_the_sizes_of_the_falls(metric, frequency, missing, extra):
    found = {check.test: check.fall for check in sanity.simulated([frequency]) if check.metric == metric}
    assert found == pytest.approx({"missing labels": missing, "extra labels": extra}, abs=6e-4)


@pytest.mark.parametrize("name", sanity.METRICS)
def test_expectations_are_those_of_random_labels(name):
    """The ideal feature's exact falls against labels drawn at random, as the paper does it."""
    score, size = sanity.METRICS[name]
    random, n, frequency = np.random.default_rng(0), 20_000, 0.1
    positive = np.arange(n) < frequency * n
    values, weights = positive.astype(float), np.ones(n)
    for test in sanity.TESTS:
        expected = next(c.fall for c in sanity.simulated([frequency]) if (c.metric, c.test) == (name, test))
        drawn = [score(values, sanity.changed_labels(test, positive, weights, random), weights) for _ in range(5)]
        assert (1 - np.mean(drawn)) / size == pytest.approx(expected, abs=0.01)


def test_changed_labels():
    random = np.random.default_rng(0)
    positive, weights = np.arange(1000) < 100, np.where(np.arange(1000) < 550, 1.0, 20.0)
    missing = sanity.changed_labels("missing labels", positive, weights, random)
    assert missing.sum() == 50 and not (missing & ~positive).any()
    extra = [sanity.changed_labels("extra labels", positive, weights, random) for _ in range(200)]
    assert all((labels >= positive).all() for labels in extra)
    # The wrong labels stand for as many texts of the corpus as the right ones.
    assert np.mean([weights[labels & ~positive].sum() for labels in extra]) == pytest.approx(100, rel=0.2)


def text(activation: float, rating: int | None, inclusion: float = 1.0) -> RatedText:
    return RatedText(0, "", activation, inclusion, rating)


def labelled(texts: list[RatedText]) -> LabelledTexts:
    nothing = Metric(None, Reason("undefined", "not asked"))
    return RatedEvidence(nothing, nothing, tuple(texts)).labelled


def test_which_descriptions_of_a_run_are_used():
    good = [text(5.0, 2)] * 4 + [text(0.0, 0)] * 4
    assert sanity.usable(labelled(good))
    assert not sanity.usable(labelled(good[1:])), "three texts rated 2"
    assert not sanity.usable(labelled(good[:4])), "none rated 0"
    assert not sanity.usable(labelled([text(1.0, 2)] * 4 + [text(1.0, 0)] * 4)), "a score that cannot fall"
    values, positive, weights = labelled([*good, text(3.0, 1), text(3.0, None), text(np.nan, 2), text(0.0, 0, 0.25)])
    assert len(values) == 9 and positive.sum() == 4 and weights[-1] == 4


def test_a_run_s_own_evidence():
    results = made_up_results(16)
    found = sanity.of_run(results)
    assert found == sanity.of_run(results), "the same for the same seed"
    assert {c.cases for c in found} == {sum(sanity.usable(r.rated_evidence.labelled) for r in results)}
    notice = by_test(found)
    for metric in ("average precision", "best F1", "IoU", "correlation"):
        assert notice[metric, "extra labels"].passed and notice[metric, "extra labels"].fall > 0.02
    rare = notice["AUROC", "missing labels"]
    assert rare.fall < notice["average precision", "missing labels"].fall / 3


def test_a_run_without_a_description_that_looks_right():
    wrong = made_up_results(16)
    kept = tuple(r for r in wrong if not sanity.usable(r.rated_evidence.labelled))
    with pytest.raises(InputError, match=f"none of the {len(kept)} descriptions"):
        sanity.of_run(Results(kept))


# --- Planted truth ----------------------------------------------------------------------------------------------------------------


def sober(model):
    """A random model that writes words of no class unless it is steered."""
    vocabulary = model.tokenizer.get_vocab()
    with torch.no_grad():
        model.unembed.W_U.mul_(4.0)
        for word in OTHERS:
            model.unembed.b_U[vocabulary[word]] = 2.0
    return model


def test_planted_truth_is_found():
    model = sober(tiny_model(seed=3))
    found = planted(model)
    assert found.passed
    assert [r.description.text for r in found.true] == list(CLASSES)
    for right, wrong in zip(found.true, found.shuffled, strict=True):
        assert right.description.index == wrong.description.index and right.description.text != wrong.description.text
        assert min(right.responsiveness.value, right.purity.value) == 1.0 and right.clarity.value > 0.9
        assert right.faithfulness.value > 0.8
        assert abs(wrong.clarity.value) < 0.2 and abs(wrong.responsiveness.value) < 0.2
        assert wrong.purity.value < 0.3 and wrong.faithfulness.value < 0.2
    assert not any(point.has_hooks() for point in model.hook_dict.values())


def test_planted_truth_in_a_bridge(tmp_path):
    found = planted(tiny_bridge(tmp_path))
    assert all(r.clarity.value > 0.85 and r.purity.value > 0.99 for r in found.true)


def test_a_planted_latent_fires_on_its_words_alone():
    model = tiny_model()
    vocabulary = embeddings(model, "hook_embed")
    torch.testing.assert_close(vocabulary, model.embed.W_E.detach())
    classes = [sorted(i for ids in words.values() for i in ids) for words in class_tokens(model).values()]
    weights, bias, threshold = separators(vocabulary, classes)
    fires = vocabulary @ weights + bias > threshold
    for number, members in enumerate(classes):
        assert fires[:, number].nonzero().squeeze(-1).tolist() == members
    same = torch.ones(20, 4)
    with pytest.raises(InputError, match="no line separates"):
        separators(same, [[0, 1, 2]])


def test_a_model_without_such_words():
    model = tiny_model()
    model.tokenizer = type(
        "Letters", (), {"unk_token_id": 3, "__call__": lambda self, text, **_: {"input_ids": [5] * len(text)}}
    )()
    with pytest.raises(InputError, match="single tokens for 0 classes"):
        planted(model)


def test_the_planted_rule_rates_and_writes_truly():
    with Judge(PlantedRule({"names of animals": ("cat", "dog")})) as judge:
        judge.check()
        written = judge.write("names of animals", n_texts=7).texts
        assert len(set(written)) == 7 and all({"cat", "dog"} & set(t.split()) for t in written)
        assert [r.value for r in judge.rate("names of animals", ["the cat.", "catalogue", "a dog"])] == [2, 0, 2]


# --- Command line -------------------------------------------------------------------------------------------------------------------


def test_command(tmp_path, monkeypatch):
    made_up_results(16).save(tmp_path / "results.sqlite")
    shown = CliRunner().invoke(app, ["sanity", str(tmp_path)], env={"COLUMNS": "160"})
    assert shown.exit_code == 0, shown.output
    assert "fails" in shown.output and "average precision" in shown.output and "This run" in shown.output
    found = json.loads(CliRunner().invoke(app, ["sanity", str(tmp_path), "--json"]).output)
    assert {c["metric"] for c in found["run"]} == set(sanity.METRICS)

    model = sober(tiny_model(seed=3))
    monkeypatch.setattr("fade_lens.cli.sanity.open_model", lambda *_: model)
    monkeypatch.setattr("fade_lens.analysis.planted.planted", cache(planted))
    shown = CliRunner().invoke(app, ["sanity", "--planted"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0 and "Planted truth: found" in shown.output and "shuffled" in shown.output
    monkeypatch.setattr("fade_lens.analysis.planted.Planted.passed", property(lambda self: False))
    assert CliRunner().invoke(app, ["sanity", "--planted", "--json"]).exit_code == 1


def test_command_without_a_run(tmp_path):
    with pytest.raises(InputError, match="give a folder that `fade-lens evaluate` finished"):
        CliRunner().invoke(app, ["sanity", str(tmp_path)], catch_exceptions=False, standalone_mode=False)


@pytest.mark.real
@pytest.mark.slow
def test_planted_truth_in_the_real_model(gemma):
    assert planted(gemma, settings=replace(SETTINGS, prompts=6, new_tokens=4)).passed
