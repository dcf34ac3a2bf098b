"""`look`: features without a description."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import fade_lens
from fade_lens import Corpus, Fade, InputError, fires, steer
from fade_lens._util.reasons import Reason
from fade_lens.data.indices import chosen_indices
from fade_lens.report.looking import look_card
from fade_lens.subject.look import LookSettings, histogram, in_strata
from tests.planted import CLASSES, natural_texts, planted_model, planted_sae
from tests.tiny import tiny_model, tiny_sae

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts()


@pytest.fixture(scope="module")
def looked():
    return fade_lens.look(MODEL, SAE, range(4), TEXTS, progress=False)


def test_a_row_tells_where_a_feature_fires_and_what_it_promotes(looked):
    frame = looked.frame
    assert frame["index"].tolist() == [0, 1, 2, 3]
    for index, words in CLASSES.items():
        row = frame.iloc[index]
        n = sum(any(word in text.split() for word in words) for text in TEXTS)
        assert row.firing_texts == n and row.density == n / len(TEXTS) and 0 < row.firing_rate < row.density
        assert {token.strip("'") for token in row.promoted.split(", ")} >= set(words)
        assert re.search("«(.*)»", row.strongest_text)[1] in words
        assert 0 < row.peak_entropy < np.log2(10)
    assert frame.iloc[3]["flags"] == "dead: never fires on the corpus" and frame.iloc[3].strongest_text == ""
    assert np.isnan(frame.iloc[3].peak_entropy)


def test_the_entropy_of_its_activation_over_tokens_is_told(looked):
    for item, row in zip(looked, looked.frame.itertuples(), strict=True):
        on: dict[str, float] = {}
        for text in item.feature.top:  # a token of this tokenizer is a word
            for token, activation in zip(text.tokens, text.activations, strict=True):
                on[token.strip()] = on.get(token.strip(), 0.0) + abs(activation or 0.0)
        shares = np.array([value for value in on.values() if value]) / max(sum(on.values()), 1e-9)
        if item.feature.dead:
            assert np.isnan(row.token_entropy) and np.isnan(row.effective_tokens)
            continue
        assert row.token_entropy == pytest.approx(-(shares * np.log(shares)).sum())
        assert row.effective_tokens == pytest.approx(np.exp(row.token_entropy))
        assert 1 < row.effective_tokens < len(CLASSES[row.index]) + 0.001
    only = fade_lens.look(MODEL, SAE, [0], [f"the {CLASSES[0][0]} sat"] * 3 + TEXTS[:40], top_texts=1, progress=False)
    assert only.frame.token_entropy[0] == 0 and only.frame.effective_tokens[0] == 1


def test_strata_hold_all_texts_on_which_a_feature_fires_and_repeat_none(looked):
    for item in looked:
        assert sum(stratum.n for stratum in item.strata) == item.feature.firing_texts == sum(item.histogram[1])
        shown = [text.number for text in item.feature.top] + [t.number for s in item.strata for t in s.texts]
        assert len(shown) == len(set(shown))
        for stratum in item.strata:
            assert all(stratum.low <= text.activation <= stratum.high for text in stratum.texts)
        highs = [stratum.high for stratum in item.strata]
        assert highs == sorted(highs, reverse=True)
    assert sum(len(stratum.texts) for stratum in looked.items[0].strata) > 3


def test_strata_are_of_equal_size_and_drawn_by_the_seed_and_the_feature_alone():
    natural = np.random.default_rng(0).normal(size=500).astype(np.float32)
    natural[:100], natural[100] = 0, np.nan
    drawn = in_strata(natural, 7, LookSettings(strata=4, stratum_texts=5))
    assert [n for _, _, n, _ in drawn] == [100, 100, 100, 99]
    assert (
        drawn
        == in_strata(natural, 7, LookSettings(strata=4, stratum_texts=5))
        != in_strata(natural, 8, LookSettings(strata=4, stratum_texts=5))
    )
    assert sum(histogram(natural)[1]) == 399 and histogram(natural)[0][0] == pytest.approx(float(np.nanmin(natural)))
    assert in_strata(np.zeros(5, np.float32), 7, LookSettings()) == [] and histogram(np.zeros(5, np.float32)) == (
        (),
        (),
    )


def test_a_look_does_not_depend_on_what_is_beside_it(looked):
    (alone,) = fade_lens.look(MODEL, SAE, 1, TEXTS, progress=False)
    beside = looked[1].items[0]
    assert (alone.feature, alone.strata, alone.promoted, alone.nearest) == (
        beside.feature,
        beside.strata,
        beside.promoted,
        beside.nearest,
    )


def test_fade_without_a_judge_looks(looked):
    fade = Fade(MODEL, SAE, corpus=TEXTS)
    assert fade.look("0:4", progress=False).items == looked.items
    assert fade.summaries([2])[2] == looked.items[2].feature


def test_fade_without_a_judge_fires_and_steers_as_the_functions_do():
    fade = Fade(MODEL, SAE, corpus=TEXTS, seed=3)
    pd.testing.assert_frame_equal(fade.fires("the cat sees"), fires(MODEL, SAE, "the cat sees"))
    drawn = {"new_tokens": 4, "temperature": 0.7}
    alone = steer(MODEL, SAE, 0, "the old", [2.0], corpus=TEXTS, seed=3, **drawn)
    pd.testing.assert_frame_equal(fade.steer(0, "the old", [2.0], **drawn), alone)
    assert fade.steer(0, "the old", [2.0], unit=3.0, seed=3, **drawn)["unit"].tolist() == [3, 3]
    given = Fade(MODEL, SAE, corpus=TEXTS, activations={0: np.full(len(TEXTS), 7.0)})
    with pytest.raises(InputError):  # the activations given are compared with the model, as everywhere
        given.steer(0, "the old")


def test_what_is_switched_off_is_in_no_card(looked):
    shown, without = (
        look_card(found.items[0])
        for found in (
            looked,
            fade_lens.look(MODEL, SAE, 0, TEXTS, progress=False, promoted_tokens=0, neighbours=0),
        )
    )
    assert [len(found) for _, found in shown["tokens"][0]["lists"]] == [10, 10]
    assert [title for title, *_ in shown["neighbours"]["lists"]][1].startswith("Fire on the same texts")
    assert without["tokens"] == [] and without["neighbours"] is None


def test_tokens_by_steering_stand_beside_those_by_the_logit_lens(looked):
    found = fade_lens.look(MODEL, SAE, range(4), TEXTS, progress=False, changed_tokens=6)
    assert "likelier" not in looked.frame and [replace(item, changed=None) for item in found] == list(looked)
    assert {token for token, _ in found[0].items[0].changed.promoted} == set(CLASSES[0])
    assert found.frame["likelier"].tolist()[3] == ""  # it never fires, and so has no unit
    lens, steered = look_card(found[0].items[0])["tokens"]
    assert [title for title, _ in steered["lists"]] == ["Likelier", "Less likely"] and "reference" in steered["note"]
    assert {token for token, _ in steered["lists"][0][1]} == set(CLASSES[0]) and lens["title"] == "Tokens"
    assert "Likelier: " in found[0]._repr_html_() and "Likelier" not in looked._repr_html_()


def test_the_strongest_texts_have_each_token_s_cause_where_that_is_asked_for():
    model, sae = tiny_model(), tiny_sae(hook="blocks.1.hook_resid_post")
    options = {"progress": False, "outlier_factor": float("inf")}
    found = fade_lens.look(model, sae, range(3), TEXTS[:40], caused_texts=2, **options)
    without = fade_lens.look(model, sae, range(3), TEXTS[:40], **options)
    for item, plain in zip(found, without, strict=True):
        first, second, third = item.feature.top[:3]
        assert (
            third.causes is None and second.causes is not None and replace(first, causes=None) == plain.feature.top[0]
        )
        frame = fade_lens.causes(model, sae, item.index, TEXTS[first.number])
        assert np.allclose(
            [np.nan if c is None else c for c in first.causes], frame["cause"], atol=1e-4, equal_nan=True
        )
        assert max(abs(c or 0) for c in first.causes) > 0.01
    shown, bare = (look_card(one.items[0]) for one in (found, without))
    assert len(shown["top"][0]["causes"]) == len(shown["top"][0]["tokens"]) and "causes" not in shown["top"][2]
    assert "leaving it out" in shown["legend"] and bare["legend"] == ""
    assert found._repr_html_().count("leaving it out") == 3 and "leaving it out" not in without._repr_html_()


def test_neurons_are_looked_at_too():
    found = fade_lens.look(tiny_model(), "blocks.0.mlp.hook_post", [3], TEXTS[:20], progress=False, strata=2)
    (item,) = found
    assert isinstance(item.nearest, Reason) and item.promoted.promoted and len(item.strata) == 2
    assert "right angles" in look_card(item)["neighbours"]["note"]
    (row,) = fade_lens.look(tiny_model(), "blocks.0.attn.hook_q", 3, TEXTS[:20], progress=False).frame.to_dict(
        "records"
    )
    assert row["promoted"] == "" and "not in the residual stream" in row["promoted_reason"] and row["nearest_reason"]


def test_random_draws_of_all_features_with_a_seed():
    drawn = chosen_indices("random:50", 4096, 0)
    assert len(set(drawn)) == 50 and drawn == sorted(drawn) and set(drawn) <= set(range(4096))
    assert drawn == chosen_indices(" random:50", 4096, 0) != chosen_indices("random:50", 4096, 1)
    assert chosen_indices("random:3", 3, 5) == [0, 1, 2]
    assert chosen_indices("0:2,9", 10, 0) == (0, 1, 9) and chosen_indices(4, 10, 0) == [4]


@pytest.mark.parametrize(
    "indices, options, message",
    [
        ([99], {}, "feature index 99 is out of range: there are 8 features"),
        ([], {}, "no feature index was given"),
        ("random:9", {}, "there are only 8 features; give random:8 or fewer"),
        ("random:0", {}, "give random:N"),
        ("random:x", {}, "give random:N"),
        ("some", {}, "neither a number nor START:END"),
        ([0], {"topp_texts": 3}, "unknown setting 'topp_texts'; the settings are"),
        ([0], {"strata": 0}, "strata is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_looked_at_is_told_in_a_sentence(indices, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fade_lens.look(MODEL, SAE, indices, TEXTS[:5], progress=False, **options)


@pytest.mark.parametrize(
    "corpus, message", [([], "no text"), (["", ""], "empty"), (Corpus(("<bos>",), None, "c"), "no token that counts")]
)
def test_a_corpus_without_texts_is_told(corpus, message):
    with pytest.raises(InputError, match=message):
        fade_lens.look(MODEL, SAE, [0], corpus, progress=False)


def test_a_feature_that_was_not_looked_at_is_told(looked):
    with pytest.raises(InputError, match="feature 7 was not looked at; these were: 0, 1, 2, 3"):
        looked[7]


def test_cards_in_a_notebook_and_the_page_show_hostile_texts_as_text(tmp_path):
    hostile = "the old house in a river <script>alert(1)</script> cat"
    model = planted_model()
    model.tokenizer.add_tokens(["<script>alert(1)</script>"])
    with torch.no_grad():
        model.embed.W_E = torch.nn.Parameter(torch.cat([model.embed.W_E, model.embed.W_E[:1]]))
    found = fade_lens.look(model, SAE, [0], [hostile] * 3, progress=False)
    shown, page = found._repr_html_(), found.to_html(tmp_path / "deep" / "look.html").read_text()
    assert "cat" in shown and "<script>alert" not in shown and "<script>alert" not in page
    assert "&lt;script&gt;" in shown
