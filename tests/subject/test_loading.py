"""Models and SAEs from a hub cache made on the spot, loaded under the names that users write."""

import json
from typing import Any, cast

import pytest
import torch
from sae_lens import SAE, HookedSAETransformer
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening
from transformers import LlamaConfig, Qwen3_5Config, Qwen3_5TextConfig, Qwen3Config

import fade_lens
from fade_lens import InputError, Subject
from fade_lens.cli.options import check_subject, open_model, open_sae
from fade_lens.generation.steering import Request, generate
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import read_hooks, resolve_hook
from fade_lens.subject.loading import load_model, load_sae, other_model
from tests.hub import SIZES, gpt2_config, hub, publish_model, publish_sae  # noqa: F401
from tests.tiny import tiny_model, tiny_sae

RELEASE, SAE_ID = "gpt2-small-res-jb", "blocks.7.hook_resid_pre"
HOOK = "blocks.1.hook_resid_pre"
TEXTS = ["the cat runs", "a red dog sleeps again", "owl and fox"]


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What fade_lens itself warned of."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("fade_lens")]


@pytest.fixture
def gpt2(hub):  # noqa: F811
    publish_model(hub, "gpt2", gpt2_config())
    publish_sae(hub, RELEASE, SAE_ID, tiny_sae(hook=HOOK, meta_model_name="gpt2-small"))
    return hub


def test_the_model_is_loaded_as_the_sae_asks(gpt2, caplog):
    model, sae = fade_lens.load(RELEASE, SAE_ID, device="cpu")
    assert isinstance(model, HookedSAETransformer) and model.W_E.mean(-1).abs().max() < 1e-6
    assert model.blocks[0].mlp.W_out.mean(-1).abs().max() < 1e-6
    assert (sae.cfg.metadata.release, sae.cfg.metadata.sae_id) == (RELEASE, SAE_ID)
    Subject(model, sae, TEXTS, [0, 1])
    assert not ours(caplog), "nothing is wrong, and the model is the SAE's under another name"


def opened_by_the_command_line(model: str, sae: tuple[Any, Any, Any], hook: str | None, dtype: str) -> Any:
    published = check_subject(model, *sae, hook, "cpu", dtype)
    subject = open_model(model, "cpu", dtype, published)
    return subject, hook or open_sae(*sae, "cpu")


def test_the_command_line_loads_as_the_library_does(gpt2, tmp_path, caplog):
    model, sae = opened_by_the_command_line("gpt2-small", (RELEASE, SAE_ID, None), None, "bfloat16")
    assert model.W_E.mean(-1).abs().max() < 1e-3 and model.W_E.dtype == torch.bfloat16
    sae.cfg.metadata.model_from_pretrained_kwargs = {"fold_value_biases": True}
    sae.save_model(tmp_path / "sae")
    model, _ = opened_by_the_command_line("gpt2", (None, None, tmp_path / "sae"), None, "float32")
    assert not model.b_V.any() and model.W_E.mean(-1).abs().max() > 1e-3
    model, hook = opened_by_the_command_line("gpt2", (None, None, None), HOOK, "float32")
    assert hook == HOOK and model.b_V.any() and not ours(caplog)


def test_what_a_config_asks_of_the_machine_stays_there(gpt2, caplog):
    asked = {"trust_remote_code": True, "device_map": "auto", "n_devices": 8, "center_writing_weights": True}
    model = load_model("gpt2", {"model_from_pretrained_kwargs": asked}, device="cpu")
    assert model.W_E.mean(-1).abs().max() < 1e-6 and model.W_E.dtype == torch.float32
    assert "trust_remote_code=True, which is left out" in caplog.text and "n_devices" not in caplog.text
    with pytest.raises(InputError, match="not a table"):
        load_model("gpt2", {"model_from_pretrained_kwargs": "fold_ln"})


@pytest.mark.parametrize(
    ("asked", "dtype", "found"),
    [
        ({}, None, torch.float32),
        ({"dtype": "bfloat16"}, None, torch.bfloat16),
        ({"torch_dtype": "torch.float16"}, None, torch.float16),
        ({"dtype": torch.bfloat16}, None, torch.bfloat16),
        ({"dtype": "bfloat16"}, "float32", torch.float32),
        ({"dtype": "float8_e4m3fn"}, None, torch.float32),
    ],
)
def test_the_model_s_dtype_is_what_the_sae_asks_for_unless_another_is_given(gpt2, caplog, asked, dtype, found):
    published = {"model_from_pretrained_kwargs": asked}
    assert load_model("gpt2", published, device="cpu", dtype=dtype).W_E.dtype == found
    assert open_model("gpt2", "cpu", dtype, published).W_E.dtype == found
    told = [line for line in ours(caplog) if "dtype" in line]
    assert len(told) == (2 if "float8_e4m3fn" in asked.values() else 0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sae_release": "gpt2-small-resjb"}, "did you mean 'gpt2-small-res-jb'"),
        (
            {"sae_id": "block.7.hook_resid_pre"},
            "no SAE 'block.7.hook_resid_pre'; did you mean 'blocks.7.hook_resid_pre'",
        ),
        ({"sae_id": "layer 7"}, "it has blocks.0.hook_resid_pre"),
        ({"model": "gpt-2"}, "did you mean 'gpt2'"),
        ({"model": "Qwen/Qwen3.5-2B-Bse"}, "did you mean 'Qwen/Qwen3.5-2B-Base'"),
        ({"device": "gpu"}, "give cpu, cuda or mps"),
        ({"dtype": "int8"}, "dtype is 'int8'; give one of 'float32', 'bfloat16', 'float16'"),
        ({"sae_id": "blocks.3.hook_resid_pre"}, "config of the SAE gpt2-small-res-jb, blocks.3.hook_resid_pre"),
    ],
)
def test_what_is_misspelt_is_told_before_any_weights_are_read(gpt2, monkeypatch, arguments, message):
    def unwanted(*_: Any, **__: Any) -> None:
        raise AssertionError("weights are read")

    monkeypatch.setattr("safetensors.safe_open", unwanted)
    for reader in (SAE, HookedSAETransformer):
        monkeypatch.setattr(reader, "from_pretrained", unwanted)
    monkeypatch.setattr(SAETransformerBridge, "boot_transformers", unwanted)
    with pytest.raises(InputError, match=message):
        fade_lens.load(**{"sae_release": RELEASE, "sae_id": SAE_ID} | arguments)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("processed", [True, False])
def test_a_model_that_the_user_loaded_otherwise_is_told_once_with_the_line(gpt2, caplog, processed, dtype):
    load = HookedSAETransformer.from_pretrained if processed else HookedSAETransformer.from_pretrained_no_processing
    model = load("gpt2", device="cpu", dtype=dtype)
    kwargs = {} if processed else {"center_writing_weights": True}
    sae = tiny_sae(hook=HOOK, meta_model_name="gpt2-small", meta_model_from_pretrained_kwargs=kwargs)
    for _ in range(2):
        features_of(model, sae, [0])
    (told,) = ours(caplog)
    assert f"center_writing_weights={not processed}" in told
    line = told.split("Load it with ")[1].split(", or both")[0]
    assert line.startswith("HookedSAETransformer.from_pretrained_no_processing('gpt2-small'")
    features_of(eval(line), sae.__class__(sae.cfg), [0])
    assert len(ours(caplog)) == 1, "the line mends it"


def test_folded_value_biases_are_told(gpt2, caplog):
    model = load_model("gpt2", device="cpu")
    sae = tiny_sae(hook=HOOK, meta_model_from_pretrained_kwargs={"fold_value_biases": True})
    features_of(model, sae, [0])
    assert "fold_value_biases=True" in caplog.text


def test_a_bridge_is_centred_where_the_sae_asks(hub, caplog):  # noqa: F811
    publish_model(hub, "someone/own-gpt2", gpt2_config())
    asked = {"model_name": "someone/own-gpt2", "model_from_pretrained_kwargs": {"center_writing_weights": True}}
    plain, model = load_model("someone/own-gpt2", device="cpu"), load_model("someone/own-gpt2", asked, device="cpu")
    assert isinstance(model, SAETransformerBridge)
    sae = tiny_sae(hook=HOOK, **{f"meta_{key}": value for key, value in asked.items()})
    tokens = torch.tensor([[1, 5, 6, 7]])
    at = {m: read_hooks(m, tokens, [resolve_hook(m, HOOK)])[resolve_hook(m, HOOK)] for m in (plain, model)}
    torch.testing.assert_close(at[model], at[plain] - at[plain].mean(-1, keepdim=True), rtol=1e-4, atol=1e-5)
    features_of(model, sae, [0])
    assert not ours(caplog)
    features_of(plain, sae, [0])
    assert "model.enable_compatibility_mode(" in caplog.text and "center_writing_weights=True" in caplog.text


@pytest.mark.parametrize(
    "made_for, model",
    [
        ("gpt2-small", "gpt2"),
        ("gpt2-small", "openai-community/gpt2"),
        ("GPT2", "gpt2-small"),
        ("google/gemma-2-2b", "gemma-2-2b"),
        ("gemma-3-1b-pt", "google/gemma-3-1b-pt"),
        ("unsloth/gemma-3-1b-pt", "gemma-3-1b"),
        ("mistral-7b", "Mistral-7B-v0.1"),
        ("meta-llama/Meta-Llama-3.1-8B", "Llama-3.1-8B"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("/models/gpt2/", "gpt2"),
        (None, "gpt2"),
        ("qwen3-1.7b", "Qwen3-1.7B"),
    ],
)
def test_one_model_has_several_names(made_for, model):
    assert not [*other_model(made_for, model)]


@pytest.mark.parametrize(
    "made_for, model, sibling",
    [
        ("gemma-2-2b", "gemma-2-2b-it", True),
        ("google/gemma-3-1b-pt", "gemma-3-1b-it", True),
        ("meta-llama/Llama-3.1-8B", "Llama-3.1-8B-Instruct", True),
        ("Qwen/Qwen3-8B-Base", "Qwen3-8B", True),
        ("mistral-7b", "Mistral-7B-Instruct-v0.1", True),
        ("mistral-7b", "Mistral-7B-Instruct-v0.2", False),
        ("gpt2-small", "gpt2-medium", False),
        ("pythia-70m-deduped", "pythia-70m", False),
        ("gemma-2-2b", "gemma-3-1b-it", False),
        ("meta-llama/Llama-3.1-8B", "DeepSeek-R1-Distill-Llama-8B", False),
    ],
)
def test_an_instruction_tuned_sibling_is_told_as_such(made_for, model, sibling):
    (told,) = other_model(made_for, model)
    assert ("sibling" in told) == sibling and ("scores mean little" in told) != sibling


HYBRID = SIZES | {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
EYES = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32, "patch_size": 4}
BRIDGES = {
    "Qwen/Qwen3-1.7B-Base": lambda: Qwen3Config(**SIZES),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": lambda: LlamaConfig(**SIZES),
    "Qwen/Qwen3.5-2B-Base": lambda: Qwen3_5TextConfig(**HYBRID),
    "Qwen/Qwen3.5-27B": lambda: Qwen3_5Config(
        text_config=HYBRID, vision_config=EYES
    ),  # as the hub has them: it sees, too
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", BRIDGES)
def test_a_model_without_a_hooked_transformer_runs_as_a_bridge(hub, name, dtype, caplog):  # noqa: F811
    publish_model(hub, name, BRIDGES[name]())
    model = load_model(name, {"model_from_pretrained_kwargs": {"fold_ln": False}}, device="cpu", dtype=dtype)
    assert isinstance(model, SAETransformerBridge) and next(model.parameters()).dtype == getattr(torch, dtype)
    sae = tiny_sae(hook="blocks.0.hook_resid_post", meta_model_name=name)
    subject = Subject(model, sae, TEXTS, [3, 5])
    tokens = torch.tensor(subject.tokens[0])[None]
    with torch.no_grad():
        hidden = cast(Any, model).original_model(tokens, output_hidden_states=True).hidden_states[1]
    (own,) = sae.encode(hidden.float())[..., [3, 5]].detach()
    peak = own[1:].gather(0, own[1:].abs().argmax(0, keepdim=True))[0].numpy()
    assert subject.activations.values[0] == pytest.approx(peak, rel=1e-4, abs=1e-5)
    steered = [(None, 0.0), (0, 0.0), (0, 40.0), (1, 40.0)]
    requests = [Request(prompt, *how, 0) for prompt in ((1, 5, 6), (1, 7, 8, 9, 10, 5)) for how in steered]
    written = generate(model, subject.features, requests, torch.ones(2), new_tokens=6).tolist()
    assert written[0] == written[1] and len({*map(tuple, written)}) > 2
    if dtype == "float32":
        alone = [generate(model, subject.features, [r], torch.ones(2), new_tokens=6)[0].tolist() for r in requests]
        assert written == alone, "padding changes nothing"
    assert not ours(caplog)


def test_a_scale_that_was_not_folded_in_is_told_once(caplog):
    model = tiny_model()
    for kind in ("expected_average_only_in", "covariance_whitening"):
        sae = tiny_sae(hook=HOOK, normalize_activations=kind)
        for _ in range(2):
            features_of(model, sae, [0])
        (told,) = ours(caplog)
        assert (
            kind in told
            and f"sae.fold_activation_{'norm_scaling_factor' if 'average' in kind else 'whitening'}(" in told
        )
        caplog.clear()
    sae = tiny_sae(hook=HOOK, normalize_activations="expected_average_only_in")
    sae.fold_activation_norm_scaling_factor(0.5)
    features_of(model, sae, [0])
    assert not ours(caplog)


@pytest.mark.parametrize("white", [False, True])
def test_a_scale_that_lies_beside_the_sae_is_folded_in(tmp_path, white, caplog):
    kind = "covariance_whitening" if white else "expected_average_only_in"
    sae = tiny_sae("jumprelu", normalize_activations=kind, apply_b_dec_to_input=False)
    x = torch.randn(5, sae.cfg.d_in, generator=torch.Generator().manual_seed(0))
    matrix = torch.eye(sae.cfg.d_in) * 3
    whitening = ActivationWhitening(torch.full((sae.cfg.d_in,), 0.2), matrix, matrix.inverse()) if white else None
    scaler = ActivationScaler(None if white else 0.25, whitening)
    sae.save_model(tmp_path)
    scaler.save(str(tmp_path / "activation_scaler.json"))
    opened = load_sae(folder=tmp_path)
    torch.testing.assert_close(opened.encode(x), sae.encode(scaler.scale(x)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(opened(x), scaler.unscale(sae(scaler.scale(x))), rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "cfg.json").read_text())["normalize_activations"] == kind, (
        "the files stay as they are"
    )


def test_an_sae_whose_weights_do_not_fit_its_config_is_told(tmp_path):
    tiny_sae(d_sae=16).save_model(tmp_path)
    config = tmp_path / "cfg.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"d_sae": 8}))
    with pytest.raises(InputError, match=r"could not be loaded: .*size mismatch for W"):
        load_sae(folder=tmp_path)
