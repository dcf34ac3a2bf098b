"""`fires`: which latents fire on a text."""

import re

import pandas as pd
import pytest
import torch

import fade_lens
from fade_lens import InputError
from fade_lens.runs import fires as module
from tests.planted import planted_model, planted_sae
from tests.tiny import HOOK, tiny_model, tiny_sae

TEXT = "the cat sees a red dog"


def slow(model, sae, text):
    """Every latent at every position but BOS."""
    tokens = torch.tensor([[model.tokenizer.bos_token_id, *model.tokenizer(text)["input_ids"]]])
    _, cache = model.run_with_cache(tokens)
    acts = sae.encode(cache[sae.cfg.metadata.hook_name])[0]
    return {(at, i): float(acts[at, i]) for at, i in acts.nonzero().tolist() if at > 0}


@pytest.mark.parametrize("architecture", ["jumprelu", "topk", "gated"])
@pytest.mark.parametrize("bytes_at_once", [1, 2**28])
def test_all_that_fires_is_there_and_nothing_else(monkeypatch, architecture, bytes_at_once):
    monkeypatch.setattr(module, "CHUNK_BYTES", bytes_at_once)
    model, sae = tiny_model(), tiny_sae(architecture)
    found = fade_lens.fires(model, sae, TEXT, k=None)
    mine = {
        (row.position, row.index_): row.activation for row in found.rename(columns={"index": "index_"}).itertuples()
    }
    assert mine == pytest.approx(slow(model, sae, TEXT), abs=1e-5)
    assert found["activation"].abs().is_monotonic_decreasing and set(found["sae"]) == {HOOK}


def test_tokens_are_those_at_which_a_planted_latent_fires():
    found = fade_lens.fires(planted_model(), planted_sae(), TEXT, k=None)
    by_latent = {index: sorted(rows["token"].str.strip()) for index, rows in found[found["index"] < 3].groupby("index")}
    assert by_latent == {0: ["cat", "dog"], 1: ["red"], 2: ["sees"]}
    assert found[found["index"] == 0]["position"].tolist() in ([2, 6], [6, 2])


def test_k_keeps_the_strongest_latents_of_each_sae_with_all_of_their_tokens():
    model, saes = tiny_model(), {"one": tiny_sae(seed=1), "two": tiny_sae(seed=2), "neurons": "blocks.1.mlp.hook_post"}
    every, some = fade_lens.fires(model, saes, TEXT, k=None), fade_lens.fires(model, saes, TEXT, k=3)
    for name in saes:
        mine = every[every["sae"] == name]
        best = mine["index"].drop_duplicates().tolist()[:3]
        kept = some[some["sae"] == name]
        assert set(kept["index"]) == set(best) and len(kept) == mine["index"].isin(best).sum()


def test_saes_in_a_list_are_told_apart():
    model = tiny_model()
    found = fade_lens.fires(model, [tiny_sae(seed=1), tiny_sae(seed=2), "blocks.1.hook_resid_post"], TEXT, k=1)
    assert set(found["sae"]) == {f"{HOOK} #1", f"{HOOK} #2", "blocks.1.hook_resid_post"}


def test_saes_with_and_without_bos_read_what_they_want():
    model, bare = tiny_model(), tiny_sae(seed=3, meta_prepend_bos=False)
    found = fade_lens.fires(model, {"bos": tiny_sae(seed=3), "bare": bare}, TEXT, k=None)
    assert found[found["sae"] == "bare"]["position"].min() == 0 and found[found["sae"] == "bos"]["position"].min() == 1


def test_a_notebook_shows_it_shaded_and_pandas_makes_plain_frames_of_it():
    found = fade_lens.fires(planted_model(), planted_sae(), TEXT)
    shown = found._repr_html_()
    assert shown.count("rgba(213,94,0") >= 4 and "cat" in shown
    assert type(found[found["index"] == 0]) is pd.DataFrame and "Nothing fires" in silent()._repr_html_()


def silent():
    sae = planted_sae()
    with torch.no_grad():
        sae.threshold.fill_(1e6)
    return fade_lens.fires(planted_model(), sae, TEXT)


def test_where_nothing_fires_the_frame_has_its_columns():
    assert len(silent()) == 0 and list(silent().columns) == module.COLUMNS


def test_hostile_tokens_stay_text():
    frame = module.Fires({"sae": ["<b>"], "position": [1], "token": ["<script>"], "index": [3], "activation": [1.0]})
    assert "<script>" not in frame._repr_html_() and "&lt;script&gt;" in frame._repr_html_()


@pytest.mark.parametrize(
    "saes, text, k, message",
    [
        (HOOK, "", 3, "text is '', which holds no token that counts"),
        (HOOK, "<bos>", 3, "holds no token that counts"),
        (HOOK, "a", 0, "k is 0; give at least 1, or None"),
        ([], "a", 3, "no SAE was given"),
        ({}, "a", 3, "no SAE was given"),
        ("blocks.9.hook_resid_post", "a", 3, "is not a hook point of tiny"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(saes, text, k, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fade_lens.fires(tiny_model(), saes, text, k)


def test_a_text_longer_than_the_context_is_cut_and_told(caplog):
    found = fade_lens.fires(planted_model(), planted_sae(), "cat " * 100)
    assert found["position"].max() == 63 and "only its first 64 tokens are read" in caplog.text
