"""Promoted tokens: the direction through the final norm and the unembedding, whatever the model folds, at whatever hook."""

import pytest
import torch

from fade_lens._util.reasons import Reason
from fade_lens.subject.features import features_of
from fade_lens.subject.lens import promoted_tokens
from tests.planted import CLASSES, planted_model, planted_sae
from tests.tiny import D_MODEL, HOOK, SPECIAL, VOCABULARY, tiny_bridge, tiny_model, tiny_sae

EVERY = len(VOCABULARY) - len(SPECIAL)


def as_dict(found):
    return [dict(one.promoted) for one in found]


def slow(model, rows):
    """Logits of each direction by token, written out: a layer norm without bias, the weights, the mean left out."""
    rows = rows.detach() - rows.detach().mean(-1, keepdim=True)
    rows = rows / (rows.square().mean(-1, keepdim=True) + model.cfg.eps).sqrt() * model.ln_final.w
    logits = rows @ model.unembed.W_U
    logits = (logits - logits.mean(-1, keepdim=True)).detach()
    return [{word: float(row[i]) for i, word in enumerate(VOCABULARY) if word not in SPECIAL} for row in logits]


def shaken(seed: int = 0):
    """A model whose norms and biases are not trivial."""
    model = tiny_model()
    torch.manual_seed(seed)
    with torch.no_grad():
        for norm in (model.ln_final, *(block.ln2 for block in model.blocks)):
            norm.w.uniform_(0.5, 2)
            norm.b.normal_()
        model.unembed.b_U.normal_(0, 5)
    return model


def test_planted_latents_promote_their_words_whatever_the_biases():
    found = promoted_tokens(planted_model(), features_of(planted_model(), planted_sae(), [0, 1, 2]), 6)
    for index, one in enumerate(found):
        assert {token for token, _ in one.promoted} == set(CLASSES[index])


def test_logits_are_those_written_out():
    model, sae = shaken(), tiny_sae()
    found = promoted_tokens(model, features_of(model, sae, [3, 7]), EVERY)
    for mine, theirs in zip(as_dict(found), slow(model, sae.W_dec[[3, 7]]), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


def test_special_tokens_are_left_out_and_the_ends_are_in_order():
    model = tiny_model()
    (one,) = promoted_tokens(model, features_of(model, tiny_sae(), [0]), 1000)
    assert len(one.promoted) == EVERY and not set(SPECIAL) & {token for token, _ in one.promoted}
    up, down = ([value for _, value in end] for end in (one.promoted, one.suppressed))
    assert up == sorted(up, reverse=True) and down == sorted(down) and up == down[::-1]


def test_folding_the_norm_into_the_weights_changes_nothing():
    model, folded = shaken(), shaken()
    folded.process_weights_(fold_ln=True, center_writing_weights=False, center_unembed=True)
    before, after = (as_dict(promoted_tokens(m, features_of(m, tiny_sae(), [0, 1]), EVERY)) for m in (model, folded))
    for one, other in zip(before, after, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize(
    "hook, weights",
    [
        ("blocks.1.mlp.hook_post", lambda model: model.blocks[1].mlp.W_out),
        ("blocks.1.attn.hook_z", lambda model: model.blocks[1].attn.W_O.flatten(0, 1)),
        ("blocks.1.hook_mlp_out", lambda model: torch.eye(D_MODEL)),
    ],
)
def test_neurons_and_heads_go_through_their_output_weights(hook, weights):
    model = shaken()
    found = promoted_tokens(model, features_of(model, hook, [5, 9]), EVERY)
    for mine, theirs in zip(as_dict(found), slow(model, weights(model)[[5, 9]]), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


def test_a_bridge_gives_what_its_weights_say(tmp_path):
    bridge = tiny_bridge(tmp_path)
    for hook, weights in ((HOOK, torch.eye(D_MODEL)), ("blocks.0.mlp.hook_post", bridge.blocks[0].mlp.W_out)):
        found = promoted_tokens(bridge, features_of(bridge, hook, [2]), EVERY)
        hf = bridge.original_model
        normed = torch.nn.functional.layer_norm(weights[[2]], (D_MODEL,), hf.transformer.ln_f.weight)
        logits = (normed @ hf.lm_head.weight.T)[0]
        best = VOCABULARY[int((logits - logits.mean())[len(SPECIAL) :].argmax()) + len(SPECIAL)]
        assert found[0].promoted[0][0] == best, hook


def test_directions_outside_the_residual_stream_have_a_reason():
    model = tiny_model()
    found = promoted_tokens(model, features_of(model, "blocks.0.attn.hook_q", [0]), 3)
    assert isinstance(found, Reason) and "'blocks.0.attn.hook_q' are not in the residual stream" in found
