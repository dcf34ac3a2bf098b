"""The main job end to end: a rule-based judge over HTTP, planted features, resuming, bad input."""

import inspect
import json

import numpy as np
import pandas as pd
import pytest
import torch

from fade_lens import (
    ClarityEvaluator,
    Corpus,
    Fade,
    FaithfulnessEvaluator,
    Judge,
    RatingEvaluator,
    Results,
    Settings,
    Subject,
)
from fade_lens._util.errors import InputError, JudgeError, StoreError
from fade_lens.report.cards import card
from fade_lens.report.looking import look_card
from fade_lens.runs.store import RunStore
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, SHUFFLED, TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.tiny import tiny_sae

SMALL = {"prompts": 12, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 120, "synthetic_texts": 20}
MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts()


@pytest.fixture
def server():
    with FakeJudge(rule=rule, writer=writer) as running:
        yield running


def make(server, **settings) -> Fade:
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **(SMALL | settings))


def test_planted_features_are_recovered(server):
    true = make(server).evaluate(TRUE, progress=False)
    for result in true:
        for name in ("clarity", "responsiveness", "purity"):
            assert result.metrics[name].value > 0.9, (result.description, name)
        assert result.faithfulness.value > 0.5, result.faithfulness
        assert result.faithfulness.details["factor"] > 0
    shuffled = make(server).evaluate(SHUFFLED, progress=False)
    for result in shuffled:
        assert abs(result.clarity.value) < 0.25 and abs(result.responsiveness.value) < 0.25
        assert result.purity.value < 0.5
        assert result.faithfulness.value is None and "gate not passed" in result.faithfulness.reason


def test_without_factors_nothing_is_steered(server, tmp_path):
    fade = make(server, factors=())
    assert fade.estimate(TRUE).calls < make(server).estimate(TRUE).calls
    results = fade.evaluate(TRUE, progress=False)
    for result in results:
        assert result.clarity.value > 0.9 and result.faithfulness.value is None
        assert result.faithfulness.reason == "not measured: the run has no steering factors"
    summary = results.summary().set_index("metric")
    assert summary.loc["faithfulness_unconditional", "mean"] is None or np.isnan(
        summary.loc["faithfulness_unconditional", "mean"]
    )
    for factors in ((), (0.0,)):
        subject = Subject(MODEL, SAE, Corpus.from_texts(TEXTS), [0], Settings(**(SMALL | {"factors": factors})))
        with pytest.raises(InputError, match="give a factor other than 0"):
            FaithfulnessEvaluator(subject, judge_of(server)).evaluate({0: TRUE[0]})
    assert f">{len(results)} hold" in results.to_html(tmp_path / "page.html").read_text()


def test_several_descriptions_of_one_feature(server):
    table = pd.DataFrame({"index": [0, 0], "description": [TRUE[0], TRUE[1]]})
    results = make(server).evaluate(table, progress=False)
    right, wrong = results.of(0)
    assert right.clarity.value > 0.9 > 0.3 > wrong.clarity.value
    with pytest.raises(InputError, match="2 descriptions"):
        results[0]


def test_order_and_company_change_no_number(server):
    together = make(server).evaluate(TRUE, progress=False).frame.set_index("index")
    backwards = make(server).evaluate(dict(reversed(TRUE.items())), progress=False).frame.set_index("index")
    alone = make(server).evaluate({1: TRUE[1]}, progress=False).frame.set_index("index")
    pd.testing.assert_frame_equal(together, backwards.loc[together.index])
    pd.testing.assert_frame_equal(together.loc[[1]], alone)


def test_no_global_randomness_is_touched(server):
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    make(server).evaluate(TRUE, progress=False)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_a_feature_that_never_fires(server):
    result = make(server, gate=None).evaluate({3: TRUE[0]}, progress=False)[3]
    assert result.feature.firing_texts == 0 and result.feature.reference is None
    assert "never fires" in result.faithfulness.reason
    assert "dead" in result.flags[0]
    assert result.clarity.value == 0.0


def test_a_concept_that_no_text_shows(server):
    result = make(server).evaluate({0: "nothing that exists"}, progress=False)[0]
    assert result.responsiveness.value is None and result.purity.value is None
    assert "2" in result.responsiveness.reason
    assert "Responsiveness is undefined" in result.faithfulness.reason or "Clarity" in result.faithfulness.reason
    assert result.purity.counts["rated_2"] == 0 and result.purity.counts["rated_0"] == 120


def test_a_judge_that_writes_nothing():
    with FakeJudge(
        rule=rule, writer=lambda concept, i: writer(concept, i) if concept not in TRUE.values() else []
    ) as server:
        result = make(server).evaluate({0: TRUE[0]}, progress=False)[0]
    assert result.clarity.value is None and "wrote no text" in result.clarity.reason
    assert "Clarity is undefined" in result.faithfulness.reason
    assert result.responsiveness.value > 0.9


def test_neurons(server):
    """The planted directions are dimensions of the residual stream: as neurons they pass the same test."""
    fade = Fade(MODEL, "blocks.0.hook_resid_post", corpus=TEXTS, judge=judge_of(server), **SMALL)
    results = fade.evaluate(TRUE, progress=False)
    assert all(r.clarity.value > 0.9 and r.responsiveness.value > 0.9 and r.faithfulness.value > 0.5 for r in results)


def test_evaluators_alone(server):
    subject = Subject(MODEL, SAE, TEXTS, list(TRUE), Settings(**SMALL))
    with pytest.raises(InputError, match="feature 9 is described, but not among"):
        subject.column(9)
    judge = judge_of(server)
    together = make(server).evaluate(TRUE, progress=False)
    for d, evidence in ClarityEvaluator(subject, judge).evaluate(TRUE).items():
        assert evidence == together[d.index].clarity_evidence
    for d, evidence in RatingEvaluator(subject, judge).evaluate(TRUE).items():
        assert evidence == together[d.index].rated_evidence
    for d, evidence in FaithfulnessEvaluator(subject, judge).evaluate(TRUE).items():
        assert evidence == together[d.index].faithfulness_evidence


def test_works_where_an_event_loop_is_running(server):
    import asyncio

    async def notebook():
        return make(server).evaluate({0: TRUE[0]}, progress=False)

    assert asyncio.run(notebook())[0].clarity.value > 0.9


def test_a_second_run_asks_nothing(server, tmp_path):
    first = make(server).evaluate(TRUE, store=tmp_path, progress=False)
    again = make(server).evaluate(TRUE, store=tmp_path, progress=False)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert again.items == first.items
    assert again.run.usage.calls == 0
    more = make(server).evaluate(TRUE | {4: TRUE[0]}, store=tmp_path, progress=False)
    assert more[1] == first[1], "descriptions may be added to a store"


def test_results_hold_the_tokens_that_features_promote_and_a_store_takes_any_number_of_them(server, tmp_path):
    found = make(server).evaluate({0: TRUE[0], 3: TRUE[0]}, store=tmp_path, progress=False)
    looked = make(server).look([0, 3], progress=False)
    for result in found:
        seen = look_card(looked[result.description.index].items[0])
        assert {token for token, _ in result.logits.promoted} >= set(CLASSES.get(result.description.index, ()))
        assert card(result)["tokens"] == seen["tokens"] and len(seen["tokens"]) == 1
        assert card(result)["neighbours"]["lists"] == seen["neighbours"]["lists"][:1]
    less = make(server, promoted_tokens=2, neighbours=0, caused_texts=1)
    fewer = less.evaluate({0: TRUE[0]}, store=tmp_path, progress=False)[0]
    assert fewer.feature == less.look(0, progress=False).items[0].feature and len(fewer.feature.top[0].causes) > 2
    assert len(fewer.logits.promoted) == 2 and fewer.feature.nearest is None
    assert fewer.metrics == found[0].metrics


def test_a_store_of_other_settings_is_refused(server, tmp_path):
    make(server).evaluate({0: TRUE[0]}, store=tmp_path, progress=False)
    with pytest.raises(StoreError, match=r"settings\.seed was 0, is 1"):
        make(server, seed=1).evaluate({0: TRUE[0]}, store=tmp_path, progress=False)
    with pytest.raises(StoreError, match="corpus"):
        Fade(MODEL, SAE, corpus=TEXTS[1:], judge=judge_of(server), **SMALL).evaluate({0: TRUE[0]}, store=tmp_path)


def test_a_judge_that_fails_in_the_middle_loses_nothing(tmp_path):
    with FakeJudge(rule=rule, writer=writer) as server:
        judge = Judge("planted", base_url=server.base_url, api_key="sk-SECRET-planted-key", max_calls=9)
        with pytest.raises(JudgeError):
            Fade(MODEL, SAE, corpus=TEXTS, judge=judge, **SMALL).evaluate(TRUE, store=tmp_path, progress=False)
        before = server.requests
        finished = make(server).evaluate(TRUE, store=tmp_path, progress=False)
        whole = make(server).evaluate(TRUE, progress=False)
        assert finished.run.usage.calls <= whole.run.usage.calls - (before - 2)
    assert finished.items == whole.items


def test_the_key_is_nowhere(server, tmp_path, caplog):
    results = make(server).evaluate(TRUE, store=tmp_path, progress=False)
    results.save(tmp_path / "results.sqlite")
    results.to_html(tmp_path / "report.html")
    results.frame.to_csv(tmp_path / "results.csv")
    import gzip

    for path in tmp_path.iterdir():
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert b"SECRET" not in data, path
    assert "SECRET" not in caplog.text + repr(make(server).judge)


def test_results_come_back_from_a_file(server, tmp_path):
    results = make(server).evaluate(TRUE | {3: TRUE[0]}, progress=False)
    loaded = Results.load(results.save(tmp_path / "r.sqlite"))
    assert loaded.items == results.items and loaded.run == results.run
    pd.testing.assert_frame_equal(loaded.frame, results.frame)


def test_the_evidence_is_the_texts_themselves(server):
    result = make(server).evaluate({0: TRUE[0]}, progress=False)[0]
    assert len(result.clarity_evidence.texts) == 20
    for text in result.rated_evidence.texts:
        assert text.text == TEXTS[text.number] and text.rating == rule(TRUE[0], text.text)
    assert {c.factor for c in result.faithfulness_evidence.continuations} == {0.0, *Settings().factors}
    assert all(c.rating == rule(TRUE[0], c.text) for c in result.faithfulness_evidence.continuations)
    top = result.feature.top[0]
    assert top.activation == pytest.approx(max(a for a in top.activations if a is not None), rel=1e-5)
    assert top.tokens[0] == "<bos>" and top.activations[0] is None
    assert max(t.activation for t in result.feature.top) == pytest.approx(result.feature.largest)


def test_estimate_before_spending(server):
    fade = make(server)
    estimate = fade.estimate(TRUE)
    assert server.requests == 0
    fade.evaluate(TRUE, progress=False)
    # All three pass the gate, so it is the bound but for equal texts, which are rated once, and the check at the start.
    assert 0.6 * estimate.calls <= server.requests <= estimate.calls + 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"factors": (1.0, float("nan"))}, r"factors\[1\] is nan"),
        ({"factors": (1.0, 1.0)}, "twice"),
        ({"factors": (), "controls": ("random_direction",)}, "no factors"),
        ({"mode": "push"}, "'add', 'clamp', 'scale', 'ablate'"),
        ({"rated_texts": 0}, "rated_texts is 0"),
        ({"reference_quantile": 0.0}, "reference_quantile"),
        ({"outlier_factor": 0.5}, "outlier_factor"),
        ({"rated": 5}, "rated is no setting"),
    ],
)
def test_settings_that_cannot_be_used(server, change, message):
    with pytest.raises(InputError, match=message):
        inspect.unwrap(Fade.__init__)(
            object.__new__(Fade), MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **(SMALL | change)
        )


def unchecked(**values) -> Settings:
    """Settings as users make them, whose types nothing checks."""
    made = object.__new__(Settings)
    inspect.unwrap(Settings.__init__)(made, **values)
    return made


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rated_texts": "5"}, "rated_texts is '5'; give a whole number"),
        ({"seed": 1.5}, "seed is 1.5; give a whole number"),
        ({"new_tokens": True}, "new_tokens is True"),
        ({"gate": "0.5"}, "gate is '0.5'; give a number or None"),
        ({"temperature": None}, "temperature is None; give a number"),
        ({"max_nll_increase": float("nan")}, "max_nll_increase is nan"),
        ({"factors": 1.0}, "factors is 1.0; give a tuple of numbers"),
        ({"factors": "1,2"}, "factors is '1,2'"),
        ({"factors": (1.0, "2")}, r"factors\[1\] is '2'; give a number"),
        ({"controls": "random_direction"}, "controls is 'random_direction'; give a tuple of names"),
    ],
)
def test_settings_of_other_types(change, message):
    with pytest.raises(InputError, match=message):
        unchecked(**change)


def test_numbers_of_numpy_become_plain_ones():
    numbers = {"seed": np.int64(3), "rated_texts": np.int32(60), "context": np.uint8(64), "gate": np.float32(0.5)}
    settings = unchecked(**numbers, factors=np.array([0.5, 2]), temperature=1)
    assert settings == Settings(seed=3, rated_texts=60, context=64, gate=0.5, factors=(0.5, 2.0), temperature=1.0)
    assert json.loads(json.dumps(settings.to_dict())) == settings.to_dict()


def test_bad_input_is_told_before_any_work(server):
    fade = make(server)
    for descriptions, message in [({}, "no descriptions"), ({0: ""}, "empty"), ({8: "x"}, "out of range")]:
        with pytest.raises(InputError, match=message):
            fade.evaluate(descriptions, progress=False)
    with pytest.raises(InputError, match="d_in is 16"):
        Fade(MODEL, tiny_sae(d_in=16), corpus=TEXTS, judge=judge_of(server))
    with pytest.raises(InputError, match="only empty texts"):
        Fade(MODEL, SAE, corpus=["", " "], judge=judge_of(server))
    with pytest.raises(InputError, match="reads at most 64"):
        make(server, context=65).evaluate(TRUE, progress=False)
    with pytest.raises(InputError, match="prompt_tokens"):
        make(server, prompt_tokens=40, new_tokens=40).evaluate(TRUE, progress=False)
    assert server.requests == 0


def test_a_judge_that_is_not_there_is_told_before_any_work(monkeypatch):
    judge = Judge("x", base_url="http://127.0.0.1:9/v1", api_key="k", max_retries=0)
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge, **SMALL)
    monkeypatch.setattr("fade_lens.subject.subject.max_activations", lambda *a, **k: pytest.fail("the model ran"))
    with pytest.raises(JudgeError, match=r"127\.0\.0\.1:9"):
        fade.evaluate(TRUE, progress=False)


def test_long_texts_are_cut_and_counted(server):
    corpus = Corpus.from_texts([*TEXTS, " ".join(["the"] * 100)])
    fade = Fade(MODEL, SAE, corpus=corpus, judge=judge_of(server), **SMALL)
    assert fade.evaluate({0: TRUE[0]}, progress=False).run.n_truncated == 1


def test_windows_reach_the_run_and_its_store_and_what_is_lost_without_is_told(server, tmp_path, caplog):
    """Documents of many texts, each with the BOS that a chat template would have put there."""
    documents = ["<bos>" + " ".join(TEXTS[at : at + 20]) for at in range(0, 400, 20)]
    settings = SMALL | {"factors": (1.0,), "gate": None, "context": 12}
    for windows in (False, True):
        caplog.clear()
        corpus = Corpus.from_texts(documents, windows=windows)
        fade = Fade(MODEL, SAE, corpus=corpus, judge=judge_of(server), **settings)
        run = fade.evaluate({0: TRUE[0]}, store=tmp_path / str(windows), progress=False)
        with RunStore(tmp_path / str(windows)) as store:
            kept = store.get_meta("documents")
        if windows:
            assert run.run.n_truncated == 0 == run.run.text_lost and "--corpus-windows" not in caplog.text
            assert sorted(set(kept)) == list(range(20)) and len(kept) == run.run.corpus.texts > 200
            assert run[0].responsiveness.value > 0.9 and fade.estimate({0: TRUE[0]}).calls > 8
        else:
            assert run.run.text_lost > 0.9 and "20 of the 20 texts" in caplog.text and "--corpus-windows" in caplog.text
            assert kept is None
        tops = run[0].feature.top
        assert all(text.tokens.count("<bos>") == 1 for text in tops), "BOS is there once"
        prompts = {c.prompt for c in run[0].faithfulness_evidence.continuations}
        assert prompts and not any("<bos>" in prompt for prompt in prompts)


def test_the_paper_preset_and_clamping(server):
    results = make(server, preset="paper", factors=(-1.0, 0.0, 1.0, 3.0)).evaluate(TRUE, progress=False)
    for result in results:
        assert result.clarity.value > 0.9 and result.faithfulness.value > 0.5
        assert {c.factor for c in result.faithfulness_evidence.continuations} == {-1.0, 0.0, 1.0, 3.0}


def test_without_a_judge_what_asks_one_is_told_before_anything_is_computed(server, monkeypatch):
    fade = Fade(MODEL, SAE, corpus=TEXTS, **SMALL)
    monkeypatch.setattr("fade_lens.runs.fade.Subject", None)  # whoever reads the corpus fails
    for ask in (
        lambda: fade.evaluate(TRUE, progress=False),
        lambda: fade.estimate(TRUE),
        lambda: fade.explain([0], progress=False),
        lambda: fade.evaluate([0], explainer="one-shot", progress=False),
    ):
        with pytest.raises(InputError, match=r"'(fade|one-shot)' asks a judge, and none was given: .*judge='openai:"):
            ask()
