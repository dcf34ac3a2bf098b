"""The model with something in the place of its activations: against each text alone and the model's whole logits."""

import numpy as np
import pytest
import torch

from fade_lens.generation import arms as module
from fade_lens.generation.arms import EVERY_ARM, answered, losses
from fade_lens.subject.reconstruction import Reconstruction
from fade_lens.subject.tokens import tokenize
from tests import architectures
from tests.architectures import bridge, gemma3_hf, gpt2_hf, hooked, sae_at, transcoder_at

RESIDUAL, HEADS = "blocks.2.hook_resid_post", "blocks.1.attn.hook_z"
TEXTS = [[5, 9, 30, 31, 8], [7], [40, 41, 42, 43, 44, 45, 9, 9], [11, 12, 1, 13]]  # 1 is EOS


def head_sae():
    return sae_at(HEADS, d_in=8, metadata={"hook_head_index": 1})


CASES = {
    "gpt2": (lambda: hooked("gpt2"), lambda: sae_at(RESIDUAL)),
    "gpt2 in front of the blocks": (lambda: hooked("gpt2"), lambda: sae_at("hook_embed")),
    "gpt2 behind the blocks": (lambda: hooked("gpt2"), lambda: sae_at("ln_final.hook_normalized")),
    "gemma2, every head": (lambda: hooked("gemma2"), lambda: sae_at(HEADS)),
    "llama, one head": (lambda: hooked("llama"), head_sae),
    "pythia, transcoder": (lambda: hooked("pythia"), lambda: transcoder_at("blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out")),
    "gpt2, transcoder at a hook that is switched on": (lambda: hooked("gpt2"), lambda: transcoder_at("blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out")),
    "gpt2-folded, transcoder at a hook that is made": (lambda: hooked("gpt2-folded"), lambda: transcoder_at("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")),
    "alibi, layer norm": (lambda: hooked("alibi"), lambda: sae_at(RESIDUAL, normalize_activations="layer_norm")),
    "bridge": (lambda: bridge(gpt2_hf()), lambda: sae_at(RESIDUAL)),
    "bridge, one head": (lambda: bridge(gemma3_hf()), head_sae),
}  # fmt: skip


def by_hand(made, mean, tokens, arm):
    """Cross-entropy and divergence of an arm, each text alone, from the whole logits."""
    ce, kl, features = np.zeros(len(tokens)), np.zeros(len(tokens)), made.features
    for text in range(len(tokens)):
        ids, special, seen = torch.tensor(tokens[text][None]), torch.from_numpy(tokens.special_of(text)), {}

        def see(tensor, hook, seen=seen):
            seen[hook.name] = tensor

        def put(tensor, hook, seen=seen, special=special):
            see(tensor, hook)
            y = features.flatten(tensor)
            new = {"zero": torch.zeros_like(y), "everywhere": torch.zeros_like(y), "mean": mean.expand_as(y)}.get(arm)
            if new is None:
                with torch.no_grad():
                    new = made.sae(features.flatten(seen[features.read_hook]))
                new = y if arm == "sae_error" else new
            keep = torch.zeros_like(special) if arm == "everywhere" else special
            new = torch.where(keep[None, :, None], y, new)
            if features.head is None:
                return new.reshape(tensor.shape)
            whole = tensor.clone()
            whole[:, :, features.head] = new
            return whole

        hooks = [] if made.features.read_hook == features.write_hook else [(features.read_hook, see)]
        with torch.no_grad(), module.running(made.model, made.hooks):
            clean = made.model(ids).float().log_softmax(-1)[0]
            with made.model.hooks(fwd_hooks=[*hooks, (features.write_hook, put)]):
                own = made.model(ids).float().log_softmax(-1)[0]
        for position in np.flatnonzero(~special.numpy()):
            kl[text] += float((clean[position].exp() * (clean - own)[position]).sum())
            if position + 1 < ids.shape[1]:
                ce[text] -= float(own[position, ids[0, position + 1]])
    return ce, kl


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_whole_logits_of_each_text_alone(case, monkeypatch):
    monkeypatch.setattr(module, "LOGIT_BYTES", 4 * architectures.VOCABULARY * 3)  # three tokens at a time
    model, sae = (make() for make in CASES[case])
    sae.turn_off_forward_pass_hook_z_reshaping()
    made = Reconstruction(model, sae)
    tokens = tokenize(model, TEXTS, context=32, prepend_bos=True)
    mean = torch.randn(made.features.d_out, generator=torch.Generator().manual_seed(1))
    found = losses(made, mean, tokens)
    assert found["n_kl"].tolist() == [5, 1, 8, 3] and found["n_ce"].tolist() == [4, 0, 7, 2]
    for arm in EVERY_ARM:
        ce, kl = by_hand(made, mean, tokens, arm)
        np.testing.assert_allclose(found[f"ce_{arm}"], ce, rtol=1e-4, atol=1e-4, err_msg=arm)
        np.testing.assert_allclose(found[f"kl_{arm}"], kl, rtol=1e-3, atol=1e-4, err_msg=arm)
    assert found["kl_sae_error"].max() < 1e-4 < found["kl_sae"].min() and not found["kl_clean"].any()


def test_in_bfloat16_sae_and_error_are_clean():
    model = hooked("llama", dtype=torch.bfloat16)
    made = Reconstruction(model, sae_at(RESIDUAL))
    tokens = tokenize(model, TEXTS, context=32, prepend_bos=True)
    found = losses(made, torch.zeros(32), tokens)
    assert found["kl_sae_error"].sum() / 17 < 0.01 < found["kl_sae"].sum() / 17


def test_a_model_is_left_as_it_was():
    model = hooked("gpt2").train()
    made = Reconstruction(model, transcoder_at("blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out"))
    losses(made, torch.zeros(32), tokenize(model, TEXTS, context=32, prepend_bos=True))
    assert model.training and not model.cfg.use_hook_mlp_in
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_of_each_text_so_many_tokens_are_drawn_whatever_the_batch(monkeypatch):
    model = hooked("gpt2")
    made, tokens = Reconstruction(model, sae_at(RESIDUAL)), tokenize(model, TEXTS, context=32, prepend_bos=True)
    found, other = (losses(made, torch.zeros(32), tokens, ("sae",), most=3, seed=seed) for seed in (0, 1))
    assert found["n_kl"].tolist() == [3, 1, 3, 3] and found["ce_clean"][2] != other["ce_clean"][2]
    monkeypatch.setattr(module, "STATE_BYTES", 1)  # a text at a time
    alone = losses(made, torch.zeros(32), tokens, ("sae",), most=3, seed=0)
    np.testing.assert_allclose(alone["kl_sae"], found["kl_sae"], rtol=1e-4)


def test_an_answer_has_its_rank_and_probability():
    model = hooked("gpt2")
    made, ids = Reconstruction(model, sae_at(RESIDUAL)), [2, 5, 9, 30]
    own = model(torch.tensor([ids]))[0, -1].softmax(-1).detach()
    for token in (int(own.argmax()), int(own.argmin())):
        clean, *others = answered(made, torch.zeros(32), ids, torch.tensor([[False, True, True, True]]), token, ("sae", "zero"))  # fmt: skip
        assert clean.rank == (1 if token == int(own.argmax()) else len(own))
        assert clean.probability == pytest.approx(float(own[token]), rel=1e-4)
        assert [one.arm for one in others] == ["sae", "zero"] and others[0].probability != clean.probability
