"""What overflows is no text without tokens: it is counted, and gives a reason where a metric would rest on the others."""

import numpy as np
import pytest
import torch

from fade_lens import Fade
from fade_lens.data.corpus import Corpus
from fade_lens.subject.activations import OutlierRule, max_activations, token_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.tokens import tokenize
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.tiny import HOOK, tiny_sae

LOUD = "owl"
TEXTS = natural_texts()
SMALL = {"prompts": 6, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 60, "synthetic_texts": 10, "gate": None}


def overflowing(word=LOUD):
    """A float16 model that one word's embedding, though finite, takes beyond float16."""
    model = planted_model()
    with torch.no_grad():
        model.embed.W_E[model.tokenizer.get_vocab()[word], -1] = 6e4
        model.pos_embed.W_pos[:, -1] = 1e4
    return model.to(torch.float16)


@pytest.mark.parametrize("source", ["standard", "jumprelu", "gated", "topk", "neurons"])
def test_texts_that_overflow_are_told_from_texts_without_tokens(source):
    model = overflowing()
    features = features_of(model, HOOK if source == "neurons" else tiny_sae(source), [1, 2, 9])
    texts = ["the cat", f"the {LOUD} and the cat", "", "a dog", f"{LOUD}"]
    tokens = tokenize(model, Corpus.from_texts(texts), context=16, prepend_bos=True)
    for limit in (float("inf"), 1e9):
        found = max_activations(model, features, tokens, OutlierRule(limit))
        assert np.isnan(found.values).all(axis=1).tolist() == [False, True, True, False, True]
        assert found.n_overflowed == 2 and found.n_outliers == 0 and found.counted.tolist() == [2, 5, 0, 2, 1]
        assert [found.overflowed(column) for column in range(3)] == [2, 2, 2] and (
            found.positions[[1, 2, 4]] == -1
        ).all()
    alone = max_activations(model, features, tokens.select([0, 3]), OutlierRule(1e9))
    np.testing.assert_allclose(alone.values, found.values[[0, 3]], rtol=0.02, atol=1e-2)
    assert all(not np.isinf(rows).any() for rows in token_activations(model, features, tokens, OutlierRule(1e9)))


def test_an_sae_that_overflows_alone_is_told():
    model, sae = planted_model(), tiny_sae("standard")
    with torch.no_grad():
        sae.W_enc[:, 2] = 6e4
        sae.b_enc[2] = 6e4
    features = features_of(model, sae.to(dtype=torch.float16), [1, 2])
    tokens = tokenize(model, Corpus.from_texts(["the cat", "a dog"]), context=16, prepend_bos=True)
    found = max_activations(model, features, tokens, OutlierRule(float("inf")))
    assert np.isfinite(found.values[:, 0]).all() and found.overflowed(0) == 0 and found.overflowed(1) > 0


def test_the_rule_for_outliers_stands_on_what_is_finite():
    model = overflowing("the")
    features = features_of(model, tiny_sae(), [1])
    tokens = tokenize(model, Corpus.from_texts(["a cat", "the cat", "a dog"]), context=16, prepend_bos=True)
    assert np.isfinite(OutlierRule.fit(model, features, tokens, factor=10.0).limit)


def test_no_metric_rests_on_the_texts_that_did_not_overflow(tmp_path, caplog):
    with FakeJudge(rule=rule, writer=writer) as server:
        fade = Fade(overflowing(), planted_sae(), corpus=TEXTS, judge=judge_of(server), **SMALL)
        results = fade.evaluate({0: TRUE[0], 1: TRUE[1]}, progress=False)
        said = server.requests
    lost = sum(LOUD in text.split() for text in TEXTS)
    assert lost and results.run.n_overflowed.natural == lost
    expected = (
        f"activations on {lost} natural texts are not finite in float16: load model and SAE in bfloat16 or float32"
    )
    assert {m.reason for result in results for m in result.metrics.values()} == {expected} and expected in caplog.text
    assert said <= 1 + 2 * 2, "the check, and the written texts asked for meanwhile; nothing is rated"
    assert results.cross_scores is None or np.isnan(results.cross_scores.clarity).all()
    page = results.to_html(tmp_path / "report.html").read_text()
    assert f"activations on {lost} natural" in page


def test_written_texts_alone_may_overflow():
    texts = [text for text in TEXTS if LOUD not in text.split()]
    loud = lambda concept, i: [f"{one} {LOUD}" for one in writer(concept, i)]  # noqa: E731
    with FakeJudge(rule=rule, writer=loud) as server:
        fade = Fade(overflowing(), planted_sae(), corpus=texts, judge=judge_of(server), **SMALL | {"factors": ()})
        result = fade.evaluate({0: TRUE[0]}, progress=False)
    assert "written texts are not finite in float16" in result[0].clarity.reason
    assert result[0].responsiveness.value is not None and result.run.n_overflowed.natural == 0


def test_steering_that_overflows_is_no_lack_of_effect():
    model = planted_model().to(torch.float16)
    with FakeJudge(rule=rule, writer=writer) as server:
        fade = Fade(model, planted_sae(), corpus=TEXTS, judge=judge_of(server), **SMALL | {"factors": (1.0, 60000.0)})
        result = fade.evaluate({0: TRUE[0]}, progress=False)[0]
        assert result.clarity.value is not None
    assert (
        "(at factor 60000) mean nothing, for the model's activations overflowed float16: use smaller factors"
        in result.faithfulness.reason
    )
    assert result.faithfulness_evidence.continuations == ()


def test_weights_that_are_not_finite_are_named_as_such():
    model = planted_model()
    with torch.no_grad():
        model.embed.W_E[model.tokenizer.get_vocab()[LOUD]] = float("nan")
    with FakeJudge(rule=rule, writer=writer) as server:
        result = Fade(model, planted_sae(), corpus=TEXTS, judge=judge_of(server), **SMALL).evaluate(
            {0: TRUE[0]}, progress=False
        )[0]
    assert "not finite in float32: look for weights of model or SAE that are not finite" in result.clarity.reason


def test_likelihoods_that_overflow_are_not_known_and_blame_no_factor(tmp_path, monkeypatch):
    """The unsteered model may overflow where it only reads the texts; that says nothing of how well they are written."""
    monkeypatch.setattr(
        "fade_lens.generation.continuing.negative_log_likelihood", lambda _, prompts, *__: np.full(len(prompts), np.nan)
    )
    monkeypatch.setattr("fade_lens.generation.continuing.repeated_share", lambda *_: 0.0)
    model = planted_model().to(torch.float16)
    with FakeJudge(rule=rule, writer=writer) as server:
        judge = judge_of(server)
        free = Fade(model, planted_sae(), corpus=TEXTS, judge=judge, **SMALL).evaluate({0: TRUE[0]}, progress=False)
        held = Fade(model, planted_sae(), corpus=TEXTS, judge=judge, **SMALL, max_nll_increase=1.0).evaluate(
            {0: TRUE[0]}, progress=False
        )
    assert free[0].faithfulness.value is not None and not any("nan" in flag for flag in free[0].flags)
    assert sum("is not known, for no likelihood is finite" in flag for flag in free[0].flags) == 1
    assert "it is not finite in float16 (at factor 0.5, 1, 1.5, 2)" in held[0].faithfulness.reason
    assert free.to_html(tmp_path / "report.html").is_file()
