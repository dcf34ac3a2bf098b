"""Hooks that a model keeps switched off, or that only a bridge has: on for the run, put back after."""

from functools import cache
from typing import Any, cast

import pytest
import torch

from fade_lens import InputError
from fade_lens.generation.steering import Request, generate
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import forward_hooks, read_hooks, resolve_hook, running
from fade_lens.subject.identity import modules_hash
from tests.architectures import bridge, gemma3_hf, gpt2_hf, hooked, hooked_gemma3, sae_at, transcoder_at
from tests.generation.test_steering import assert_like_slow, requests_for

TOKENS = torch.tensor([[2, 5, 9, 17, 4]])
SETTINGS = ("use_hook_mlp_in", "use_attn_in", "use_split_qkv_input", "use_attn_result")
SWITCHED = {
    "blocks.1.hook_mlp_in": "use_hook_mlp_in",
    "blocks.1.attn.hook_result": "use_attn_result",
    "blocks.1.hook_attn_in": "use_attn_in",
    "blocks.1.hook_q_input": "use_split_qkv_input",
    "blocks.1.hook_k_input": "use_split_qkv_input",
    "blocks.1.hook_v_input": "use_split_qkv_input",
}
MLP_IN = "blocks.1.mlp.hook_in"
MODELS = {
    "gpt2": lambda: hooked("gpt2"),
    "pythia": lambda: hooked("pythia"),
    "llama": lambda: hooked("llama"),
    "gemma2": lambda: hooked("gemma2"),
    "bridge of gpt2": lambda: bridge(gpt2_hf()),
    "bridge of gemma3": lambda: bridge(gemma3_hf()),
}


@cache
def made(name: str) -> Any:
    return MODELS[name]()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


def state(model: Any) -> tuple[Any, ...]:
    """Everything that a run may have left behind."""
    modules = {id(m): m for m in (*model.modules(), *getattr(model, "original_model", model).modules())}.values()
    hooks = (
        [len(p.fwd_hooks) for p in model.hook_dict.values()],
        modules_hash(model),
        modules_hash(getattr(model, "original_model", model)),
    )
    settings = [bool(getattr(model.cfg, name)) for name in SETTINGS]
    return settings, hooks, len(model.hook_dict), MLP_IN in model.hook_dict, [m.training for m in modules]


@pytest.mark.parametrize("hook", SWITCHED)
def test_a_hook_is_switched_on_for_the_run_alone(model, hook):
    grouped = getattr(model.cfg, "n_key_value_heads", None) not in (None, model.cfg.n_heads)
    if hook.endswith("attn_in") and grouped and not hasattr(model, "original_model"):
        with pytest.raises(InputError, match=r"'blocks.1.hook_attn_in' cannot be switched on .*split_qkv_input"):
            features_of(model, hook, [0])
        assert not any(state(model)[0])
        return
    name = resolve_hook(model, hook)
    read_hooks(model, TOKENS, [name])  # a bridge wires some hooks of its own at its first run
    before = state(model)
    found = read_hooks(model, TOKENS, [name])[name]
    assert state(model) == before
    setter = getattr(model, f"set_{SWITCHED[hook]}")
    setter(True)
    _, cache = model.run_with_cache(TOKENS)
    setter(False)
    torch.testing.assert_close(found, cache[name], rtol=1e-5, atol=1e-5)
    features = features_of(model, hook, [0, 3])
    assert features.encode(found).shape == (1, 5, 2)


def test_the_input_of_an_mlp_is_the_same_tensor_under_every_kind_of_model(model):
    seen: list[torch.Tensor] = []
    with model.blocks[1].mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach())):
        model(TOKENS)
    read_hooks(model, TOKENS, [MLP_IN])
    before = state(model)
    torch.testing.assert_close(read_hooks(model, TOKENS, [MLP_IN])[MLP_IN].detach(), seen[0], rtol=1e-5, atol=1e-5)
    assert state(model) == before


def test_a_bridge_and_a_hooked_transformer_give_a_transcoder_the_same_tensors():
    hf = gemma3_hf()
    pair = hooked_gemma3(hf), bridge(hf)
    for hook in ("blocks.1.hook_mlp_in", MLP_IN, "blocks.1.hook_mlp_out"):
        one, other = (read_hooks(m, TOKENS, [resolve_hook(m, hook)])[resolve_hook(m, hook)] for m in pair)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "bridge of gpt2"])
def test_what_the_user_switched_on_stays_on_and_its_rival_is_not_heard_over_it(name):
    model = made(name)
    model.set_use_split_qkv_input(True)
    hook = resolve_hook(model, "blocks.1.hook_attn_in")
    read_hooks(model, TOKENS, [hook])
    assert model.cfg.use_split_qkv_input and not model.cfg.use_attn_in
    with torch.no_grad(), forward_hooks(model, [(hook, lambda x, hook: x * 0)]):
        silenced = model(TOKENS)
    assert (silenced - model(TOKENS)).abs().max() > 1e-3
    assert model.cfg.use_split_qkv_input and not model.cfg.use_attn_in
    model.set_use_split_qkv_input(False)


def test_all_is_put_back_after_an_error(model):
    model.train()
    hooks = ["blocks.1.hook_mlp_in", "blocks.1.attn.hook_result", resolve_hook(model, MLP_IN)]
    before = state(model)
    with pytest.raises(KeyboardInterrupt), running(model, hooks):
        assert state(model) != before
        raise KeyboardInterrupt
    assert state(model) == before
    model.eval()


@pytest.mark.parametrize("hook", ["blocks.1.hook_mlp_in", MLP_IN, "blocks.2.attn.hook_result", "blocks.1.hook_q_input"])
@pytest.mark.parametrize(
    "name, mode", [("gpt2", "add"), ("llama", "clamp"), ("bridge of gpt2", "clamp"), ("bridge of gemma3", "add")]
)
def test_steering_at_a_hook_that_was_off(name, hook, mode):
    model = made(name)
    features = features_of(model, hook, [0, 3])
    assert_like_slow(model, features, mode, requests_for(features, count=5))
    assert not any(state(model)[0])


@pytest.mark.parametrize("read", ["blocks.1.hook_mlp_in", MLP_IN])
@pytest.mark.parametrize("name", ["gemma2", "bridge of gemma3"])
def test_steering_a_transcoder_that_reads_before_the_mlp(name, read):
    model = made(name)
    features = features_of(model, transcoder_at(read, "blocks.1.hook_mlp_out"), [1, 2])
    assert_like_slow(model, features, "clamp", requests_for(features, count=5))
    assert not any(state(model)[0])


def test_a_transcoder_reads_where_its_file_says(caplog):
    transcoder = transcoder_at("blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out")
    transcoder.cfg.metadata.hf_hook_name = "model.layers.1.pre_feedforward_layernorm.output"
    for model in (hooked("gemma2"), bridge(gemma3_hf())):
        assert features_of(model, transcoder, [1]).read_hook == MLP_IN
    assert len([r for r in caplog.records if "as its file says" in r.getMessage()]) == 1


def test_a_model_without_mlps_has_no_input_of_them():
    with pytest.raises(InputError, match=r"'blocks.1.mlp.hook_in' is not a hook point"):
        features_of(hooked("attn-only"), MLP_IN, [0])
    with pytest.raises(InputError, match=r"'blocks.9.mlp.hook_in' is not a hook point"):
        features_of(hooked("gpt2"), "blocks.9.mlp.hook_in", [0])


def test_dropout_is_off_while_a_model_runs():
    model = bridge(gpt2_hf())
    hf = cast(Any, model).original_model
    hf.train()
    for module in hf.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    features = features_of(model, sae_at("blocks.2.hook_resid_post"), [1, 2])
    requests = [Request((2, 5, 9), feature, 3.0, stream=0) for feature in (0, 1, None)]

    def both() -> tuple[torch.Tensor, Any]:
        hidden = read_hooks(model, TOKENS, [features.read_hook])[features.read_hook]
        return hidden, generate(model, features, requests, torch.ones(2), new_tokens=8)

    first, again = both(), both()
    assert torch.equal(first[0], again[0]) and (first[1] == again[1]).all()
    assert all(module.training for module in hf.modules()), "the model is given back as it was"
    hf.eval()
    assert torch.equal(first[0], both()[0]) and (first[1] == both()[1]).all()


@pytest.mark.parametrize("name", ["gpt2", "bridge of gpt2"])
def test_embeddings_have_one_name_under_every_kind_of_model(name):
    model = made(name)
    features = features_of(model, "hook_embed", [0, 3])
    found = read_hooks(model, TOKENS, [features.read_hook])[features.read_hook]
    torch.testing.assert_close(found, model.W_E[TOKENS], rtol=1e-5, atol=1e-5)
