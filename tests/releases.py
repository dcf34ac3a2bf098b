"""Stand-ins for what SAELens' directory of releases lists, in a hub cache made on the spot, and what each must pass.

A stand-in has the files that the true one has on the hub, under its name and in its format, so that SAELens' loaders,
TransformerLens, transformers and fade_lens read it as they read the true one; sizes and numbers differ. Three things
that are written in code, not in files, have to be told the small sizes; everything else runs as it does for a user:

- what SAELens' loaders know by name (`STATED_BY_CODE`) is overridden in the directory's `config_overrides`;
- sizes of models that TransformerLens knows by name (Gemma, Llama) are read from the model's own config.json;
- headers of files that Gemma Scope 2's and mntss' loaders ask the hub for are read from the cache.
"""

import json
import re
import subprocess
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from sae_lens.registry import SAE_CLASS_REGISTRY
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformer_lens import loading_from_pretrained as lens

from fade_lens import load
from fade_lens.generation.decoders.base import left_padded
from fade_lens.generation.steering import Request, Steering, decoder_for
from fade_lens.subject.features import Features, features_of
from fade_lens.subject.hooks import Model, dtype_of, forward_hooks, is_bridge, model_name, read_hooks, resolve_hook
from tests.families import D_MODEL, HEADS, family, official, sizes, write_model
from tests.hub import snapshot

D_SAE = 128
Weights = dict[str, Tensor]

# --- SAEs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """One published SAE, with what decides its stand-in.

    Attributes:
        release: its release in SAELens' directory, or a repository that it does not list.
        sae_id: its name there.
        loader: SAELens' name of what reads it.
        repo: the repository on the hub, with its files at `path`.
        model: official name of the model that the loaded SAE names.
        layer: the block that it reads.
        hook: where it reads, without `blocks.L.`.
        architecture: SAELens' name of what it is once loaded.
    """

    release: str
    sae_id: str
    loader: str
    repo: str
    path: str
    model: str
    layer: int
    hook: str
    architecture: str

    @property
    def d_in(self) -> int:
        """Width of what it reads."""
        options = family(self.model)[1]
        d_head = options.get("text_config", options).get("head_dim", D_MODEL // HEADS)
        return HEADS * d_head if self.hook == "attn.hook_z" else D_MODEL

    @property
    def d_out(self) -> int:
        """Width of what it writes."""
        return D_MODEL if "transcoder" in self.architecture else self.d_in

    @property
    def hook_name(self) -> str:
        """Where it reads, as SAELens says it."""
        return self.hook if self.hook == "hook_embed" else f"blocks.{self.layer}.{self.hook}"

    @property
    def hook_name_out(self) -> str:
        """Where it writes."""
        return f"blocks.{self.layer}.hook_mlp_out" if "transcoder" in self.architecture else self.hook_name


FILES: dict[str, Callable[[Published, Weights], dict[str, Any]]] = {}
"""By loader: the files of an SAE, content by path in its repository."""
PLAIN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
LINEAR_NAMES = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight", "b_dec": "decoder.bias"}
STATED_BY_CODE = ("gemma_2", "gemma_2_transcoder", "qwen_scope", "goodfire", "deepseek_r1")
"""Loaders that know the SAE's sizes without a file."""


def files_of(*names: str) -> Callable[[Any], Any]:
    """Register a function as that which gives the files of SAEs for these loaders."""

    def register(function: Any) -> Any:
        FILES.update(dict.fromkeys(names, function))
        return function

    return register


def renamed(weights: Weights, names: dict[str, str], *transposed: str) -> Weights:
    """The weights under other names, some as their transposes."""
    return {new: weights[old].T if old in transposed else weights[old] for old, new in names.items()}


# What a release's own configs say that a plain ReLU's do not.
SAVED: dict[str, dict[str, Any]] = {
    r"-v5-": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 32}, "normalize_activations": "layer_norm"},
    r"matryoshka-dc": {"architecture": "jumprelu"},
}
# dictionary_learning's class by release, its name in SAELens, and the names of its parameters.
GATED = {"W_enc": "encoder.weight", "b_enc": "gate_bias", "W_dec": "decoder.weight", "b_dec": "decoder_bias"}
DICTIONARIES: dict[str, tuple[str, str, dict[str, str]]] = {
    r"gated": ("GatedAutoEncoder", "gated", GATED | {"b_mag": "mag_bias", "threshold": "r_mag"}),
    r"_topk_": ("AutoEncoderTopK", "topk", LINEAR_NAMES | {"b_dec": "b_dec"}),
    r"andyrdt": ("BatchTopKSAE", "jumprelu", LINEAR_NAMES | {"b_dec": "b_dec"}),
    r"saebench_": ("MatryoshkaBatchTopKSAE", "jumprelu", PLAIN),
    r"": ("AutoEncoder", "standard", LINEAR_NAMES | {"b_dec": "bias"}),
}


def first(table: dict[str, Any], text: str) -> Any:
    """The entry of the first pattern found in the text, or None."""
    return next((found for pattern, found in table.items() if re.search(pattern, text)), None)


@files_of("sae_lens")
def sae_lens_files(sae: Published, weights: Weights) -> dict[str, Any]:
    config: dict[str, Any] = {"d_in": sae.d_in, "d_sae": D_SAE, "dtype": "float32", "architecture": "standard"}
    about = {"model_name": sae.model.split("/")[-1], "context_size": 32, "prepend_bos": True}
    if sae.architecture == "jumprelu":  # saved by SAELens 6
        config |= {"apply_b_dec_to_input": True}
        config["metadata"] = about | {"hook_name": sae.hook_name, "sae_lens_version": "6.0.0"}
    else:
        config |= about | {"hook_point": sae.hook_name, "hook_point_layer": sae.layer, "hook_point_head_index": None}
        weights = renamed(weights, PLAIN)
    config |= first(SAVED, sae.release) or {}
    if sae.sae_id in get_pretrained_saes_directory()[sae.release].norm_scaling_factor:
        config["normalize_activations"] = "expected_average_only_in"  # SAELens folds that scale into the weights
    return {f"{sae.path}/cfg.json": config, f"{sae.path}/sae_weights.safetensors": weights}


@files_of("connor_rob_hook_z")
def connor_rob_files(sae: Published, weights: Weights) -> dict[str, Any]:
    config = {"act_size": sae.d_in, "dict_size": D_SAE, "act_name": sae.hook_name}
    return {sae.path.split(".pt")[0] + "_cfg.json": config, sae.path: renamed(weights, PLAIN)}


@files_of("gemma_2", "gemma_2_transcoder")
def gemma_2_files(sae: Published, weights: Weights) -> dict[str, Any]:
    return {f"{sae.path}/params.npz": weights}


@files_of("gemma_3")
def gemma_3_files(sae: Published, weights: Weights) -> dict[str, Any]:
    found = renamed(weights, {name: name.lower() for name in weights})
    if "clt" in sae.path:  # a decoder for each layer above; no config
        return {f"{sae.path}.safetensors": found | {"w_dec": torch.stack([weights["W_dec"]] * 3, dim=1)}}
    name = sae.repo.split("/")[-1].replace("gemma-scope-2", "gemma-v3")
    config = {"architecture": "jump_relu", "model_name": name, "affine_connection": "affine" in sae.path}
    if sae.hook == "hook_mlp_in":  # SAELens' name for what the file says otherwise
        for end, part in (("in", "pre"), ("out", "post")):
            config[f"hf_hook_point_{end}"] = f"model.layers.{sae.layer}.{part}_feedforward_layernorm.output"
    if config["affine_connection"]:
        found["affine_skip_connection"] = weights["W_dec"][:D_MODEL]
    return {f"{sae.path}/config.json": config, f"{sae.path}/params.safetensors": found}


@files_of("llama_scope")
def llama_scope_files(sae: Published, weights: Weights) -> dict[str, Any]:
    config = {"d_model": D_MODEL, "d_sae": D_SAE, "hook_point_in": sae.hook_name, "jump_relu_threshold": 0.2}
    config["dataset_average_activation_norm"] = {"in": 2.0 * D_MODEL**0.5, "out": 1.0}
    found = renamed(weights, LINEAR_NAMES, "W_enc", "W_dec")
    return {f"{sae.path}/hyperparams.json": config, f"{sae.path}/checkpoints/final.safetensors": found}


@files_of("llama_scope_r1_distill")
def llama_scope_r1_files(sae: Published, weights: Weights) -> dict[str, Any]:
    config = {"d_model": D_MODEL, "expansion_factor": D_SAE // D_MODEL, "hook_point_in": sae.hook_name}
    found = renamed(weights, LINEAR_NAMES, "W_enc", "W_dec") | {"log_jumprelu_threshold": weights["threshold"].log()}
    return {f"{sae.path}/config.json": config, f"{sae.path}/sae_weights.safetensors": found}


@files_of("dictionary_learning_1")
def dictionary_learning_files(sae: Published, weights: Weights) -> dict[str, Any]:
    kind, _, names = first(DICTIONARIES, sae.release)
    trainer = {"dict_class": kind, "layer": sae.layer, "lm_name": sae.model}
    trainer |= {"activation_dim": sae.d_in, "dict_size": D_SAE, "k": 20}
    weights = weights | {"b_mag": weights["b_enc"] + 0.1}
    found = renamed(weights, names, *("W_enc", "W_dec") * (names is not PLAIN))
    if "TopK" in kind:
        found |= {"k": torch.tensor(20), "threshold": torch.tensor(0.4)}
    return {f"{sae.path}/config.json": {"trainer": trainer, "buffer": {"ctx_len": 32}}, f"{sae.path}/ae.pt": found}


@files_of("qwen_scope")
def qwen_scope_files(sae: Published, weights: Weights) -> dict[str, Any]:
    return {sae.path: renamed(weights, PLAIN, "W_enc", "W_dec")}


@files_of("mwhanna_transcoder")
def mwhanna_files(sae: Published, weights: Weights) -> dict[str, Any]:
    sizes = {name: {"value": size} for name, size in (("d_model", D_MODEL), ("d_feature", D_SAE), ("batch_size", 32))}
    config = {} if "14b" in sae.repo else {"config.yaml": {"model_name": sae.model}}  # whose repository has none
    return config | {"wandb-config.yaml": sizes, sae.path: renamed(weights, PLAIN, "W_enc")}


@files_of("mntss_clt_layer_transcoder")
def mntss_files(sae: Published, weights: Weights) -> dict[str, Any]:
    config = {"model_name": sae.model, "feature_input_hook": sae.hook, "feature_output_hook": "hook_mlp_out"}
    encoder = renamed(weights, {name: f"{name}_{sae.path}" for name in ("W_enc", "b_enc", "b_dec")}, "W_enc")
    decoders = torch.stack([weights["W_dec"], weights["W_dec"].flip(0)], dim=1)  # one for each layer above
    decoder = {f"W_dec_{sae.path}": decoders}
    return {"config.yaml": config} | {
        f"W_{kind}_{sae.path}.safetensors": found for kind, found in (("enc", encoder), ("dec", decoder))
    }


@files_of("temporal")
def temporal_files(sae: Published, weights: Weights) -> dict[str, Any]:
    options = {"n_heads": 2, "n_attn_layers": 1, "bottleneck_factor": 4, "kval_topk": 16, "sae_diff_type": "topk"}
    sae_class, config_class = SAE_CLASS_REGISTRY["temporal"]
    state = sae_class(config_class(d_in=sae.d_in, d_sae=D_SAE, **options)).state_dict()
    found = {name: tensor for name, tensor in state.items() if name.startswith("attn_layers.")}
    found |= {"D": weights["W_dec"], "b": weights["b_dec"]}
    options |= {"tied_weights": True, "exp_factor": D_SAE / sae.d_in, "scaling_factor": 0.5}
    config = {"llm": {"dimin": sae.d_in}, "sae": options, "data": {"dtype": "float32"}}
    return {f"{sae.path}/conf.yaml": config, f"{sae.path}/latest_ckpt.safetensors": found}


@files_of("goodfire")
def goodfire_files(sae: Published, weights: Weights) -> dict[str, Any]:
    names = {old: new.replace(".", "_linear.") for old, new in LINEAR_NAMES.items()}
    return {sae.path: renamed(weights, names, "W_enc", "W_dec")}


@files_of("deepseek_r1")
def deepseek_files(sae: Published, weights: Weights) -> dict[str, Any]:
    return {sae.path: renamed(weights, LINEAR_NAMES, "W_enc", "W_dec")}


def write_sae(hub: Path, sae: Published) -> None:
    """The files of an SAE of random weights, half of whose latents fire."""
    generator = torch.Generator().manual_seed(len(sae.sae_id))
    shapes = {"W_enc": (sae.d_in, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, sae.d_out), "b_dec": (sae.d_out,)}
    weights = {name: torch.randn(shape, generator=generator) / 3 ** (3 - len(shape)) for name, shape in shapes.items()}
    weights["threshold"] = torch.rand(D_SAE, generator=generator) / 5
    for name, content in FILES[sae.loader](sae, weights).items():
        path = snapshot(hub, sae.repo) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file(
                {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in content.items()}, path
            )
        elif path.suffix == ".npz":
            np.savez(path, **content)
        elif path.suffix in (".pt", ".pth"):
            torch.save(content, path)
        else:
            path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))


# --- the directory ----------------------------------------------------------------------------------------------------

READ_AT: dict[str, tuple[str, str]] = {
    "connor_rob_hook_z": ("attn.hook_z", "standard"),
    "gemma_2_transcoder": ("ln2.hook_normalized", "jumprelu_transcoder"),
    "mwhanna_transcoder": ("mlp.hook_in", "transcoder"),
    "mntss_clt_layer_transcoder": ("hook_resid_mid", "transcoder"),
    "temporal": ("hook_resid_post", "temporal"),
    "qwen_scope": ("hook_resid_post", "topk"),
    "goodfire": ("hook_resid_post", "standard"),
    "deepseek_r1": ("hook_resid_post", "standard"),
}
"""Hook and architecture of all SAEs of a loader."""
GEMMA_SITES = {
    r"embedding": "hook_embed",
    r"transcoder|clt": "hook_mlp_in",
    r"att": "attn.hook_z",
    r"mlp": "hook_mlp_out",
    r"": "hook_resid_post",
}
NAMED_OTHERWISE = {
    "gemma-scope-9b-it-res": "google/gemma-2-9b-it",
}
"""The model that a loaded SAE names, where the directory's entry for the release names another."""


def published(release: str, sae_id: str) -> Published:
    """What the directory and its loader's rules say of an SAE."""
    listed, loader = get_pretrained_saes_directory()[release], loaders.get_conversion_loader_name(release)
    path = listed.saes_map[sae_id]
    if loader in READ_AT:
        hook, architecture = READ_AT[loader]
    elif loader in ("gemma_2", "gemma_3"):
        hook, architecture = first(GEMMA_SITES, f"{listed.repo_id}/{path}"), "jumprelu"
        if hook == "hook_mlp_in":
            architecture = "jumprelu_skip_transcoder" if "affine" in path else "jumprelu_transcoder"
    elif loader.startswith("llama_scope"):
        letter = re.sub(r"^l\d+(.).*", r"\1", sae_id)
        hook, architecture = {"a": "hook_attn_out", "m": "hook_mlp_out", "r": "hook_resid_post"}[letter], "jumprelu"
    elif loader == "dictionary_learning_1":
        hook, architecture = "hook_resid_post", first(DICTIONARIES, release)[1]
    else:
        assert loader == "sae_lens", f"no stand-in is known for {loader}"
        saved = first(SAVED, release) or {}
        hook = re.sub(r"^blocks\.\d+\.(\w+?)(_\d+)?$", r"\1", sae_id)
        architecture = saved.get("activation_fn_str", saved.get("architecture", "standard"))
    model = official(NAMED_OTHERWISE.get(release, listed.model))
    layer = re.search(r"(?:layer_?|blocks\.|\bl)(\d+)", sae_id)
    layer = int(layer[1]) if layer else 0
    return Published(release, sae_id, loader, listed.repo_id, path, model, layer, hook, architecture)


CROSS_LAYER = "clt/width_16k_l0_big/layer_0"
UNLISTED = Published(
    release="google/gemma-scope-2-270m-pt",
    sae_id=CROSS_LAYER,
    loader="gemma_3",
    repo="google/gemma-scope-2-270m-pt",
    path=CROSS_LAYER,
    model="google/gemma-3-270m",
    layer=0,
    hook="hook_mlp_in",
    architecture="jumprelu_transcoder",
)
"""A cross-layer transcoder of Gemma Scope 2: SAELens' loader reads it, its directory lists none."""


@cache
def walk() -> tuple[Published, ...]:
    """Of every release one SAE of each hook and architecture, that of the lowest layer."""
    chosen: dict[Any, Published] = {}
    for release, listed in get_pretrained_saes_directory().items():
        for sae in (published(release, sae_id) for sae_id in listed.saes_map):
            before = chosen.setdefault((release, sae.hook, sae.architecture), sae)
            if sae.layer < before.layer:
                chosen[release, sae.hook, sae.architecture] = sae
    return tuple(chosen.values())


def kinds(saes: Iterable[Published]) -> list[Published]:
    """One SAE for each loader, architecture and hook, and for each class of model; low layers first."""
    chosen: dict[Any, Published] = {}
    saes = sorted(saes, key=lambda sae: sae.layer)
    for sae in saes:
        chosen.setdefault((sae.loader, sae.architecture, sae.hook), sae)
    classes = {family(sae.model)[0] for sae in chosen.values()}
    others = {family(sae.model)[0]: sae for sae in reversed(saes) if family(sae.model)[0] not in classes}
    return [*chosen.values(), *others.values()]


@contextmanager
def hub_cache(hub: Path, saes: Sequence[Published]) -> Generator[None]:
    """A time in which the hub is this folder, with stand-ins of the SAEs and their models."""
    convert = lens.convert_hf_model_config

    def small(name: str, **options: Any) -> dict[str, Any]:
        config = convert(name, **options)
        return config | {key: size for key, size in sizes(name).items() if key in config}

    def header(repository: str, name: str) -> dict[str, list[int]]:
        with safe_open(snapshot(hub, repository) / name, framework="pt") as file:
            return {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    def no_installation(*_: Any, **__: Any) -> None:
        raise OSError("nothing is installed here")  # TransformerLens would, for a model that can also see

    with ExitStack() as patches:
        patches.enter_context(patch("huggingface_hub.constants.HF_HUB_CACHE", str(hub)))
        patches.enter_context(patch("huggingface_hub.constants.HF_HUB_OFFLINE", True))
        patches.enter_context(patch.object(lens, "convert_hf_model_config", small))
        patches.enter_context(patch.object(loaders, "get_safetensors_tensor_shapes", header))
        patches.enter_context(patch.object(subprocess, "check_call", no_installation))
        layers: dict[str, int] = {}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for sae in saes:
                write_sae(hub, sae)
                layers[sae.model] = max(layers.get(sae.model, 5), sae.layer + 2)
                if sae.loader in STATED_BY_CODE:
                    listed = get_pretrained_saes_directory()[sae.release]
                    stated = (listed.config_overrides or {}) | {"d_in": sae.d_in, "d_sae": D_SAE, "d_out": sae.d_out}
                    patches.enter_context(patch.object(listed, "config_overrides", stated))
            for model, count in layers.items():
                write_model(hub, model, count)
        yield


# --- the check --------------------------------------------------------------------------------------------------------

FEATURES = (3, 0, 77)
STEERED, FACTOR = 1, 1.5


def opened(sae: Published, dtype: str = "float32") -> tuple[Model, SAE[Any]]:
    """The model and the SAE, loaded as a user does."""
    if sae is UNLISTED:
        loader = loaders.gemma_3_sae_huggingface_loader
        model = load("gemma-scope-2-270m-pt-transcoders-all", "layer_0_width_16k_l0_big", dtype=dtype)[0]
        return model, SAE.from_pretrained(sae.release, sae.sae_id, converter=loader)
    return load(sae.release, sae.sae_id, device="cpu", dtype=dtype)


def check(sae: Published, dtype: str = "float32") -> str:
    """What fade_lens reads, encodes and steers is what SAELens means. Returns the kind of model and its dtype."""
    model, loaded = opened(sae, dtype)
    assert (loaded.cfg.metadata.hook_name, loaded.cfg.architecture()) == (sae.hook_name, sae.architecture)
    assert model_name(model).split("/")[-1] == sae.model.split("/")[-1]
    features = features_of(model, loaded, FEATURES)
    assert features.write_hook == resolve_hook(model, sae.hook_name_out)
    tokens = torch.randint(3, 30, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = read_hooks(model, tokens, [features.read_hook])[features.read_hook]
        own = own_activations(loaded, hidden)
        assert 0.05 < (own > 0).float().mean() < 0.95, "an SAE on which all or nothing fires tells little"
        torch.testing.assert_close(features.encode(hidden), own[..., FEATURES].float(), rtol=1e-5, atol=1e-5)
        reference = 2 / features.directions().norm(dim=-1)  # so that each steers as far as the others
        for read, written in steered_step(model, features, reference):
            activations = own_activations(loaded, read[:1])
            unsteered = loaded.decode(activations)
            own_activations(loaded, read[:1])  # the SAE keeps the scale of its last input, and uses it up in decoding
            activations[..., FEATURES[STEERED]] += FACTOR * reference[STEERED]
            want = (loaded.decode(activations) - unsteered).float()[0].flatten(1)
            got = (written[1] - written[0]).float().flatten(1)
            rounding = (2 * torch.finfo(dtype_of(model)).eps + 1e-5) * float(written.abs().max())
            torch.testing.assert_close(got, want, rtol=1e-4, atol=rounding)
            assert want.abs().max() > 4 * rounding, "too small a step to be told from rounding"
    return f"{'bridge' if is_bridge(model) else 'HookedTransformer'}, {str(dtype_of(model)).removeprefix('torch.')}"


def own_activations(sae: SAE[Any], hidden: Tensor) -> Tensor:
    """What the SAE itself makes of a hook's tensor; heads are flattened where it does not do so."""
    return sae.encode(hidden if sae.cfg.reshape_activations == "hook_z" else hidden.flatten(2))


def steered_step(model: Model, features: Features, reference: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The tensors that are read and written, of an unsteered row and a steered one: in the prompt and a step after."""
    prompt = (1, 5, 9, 4)
    requests = [Request(prompt, None, 0.0, 0), Request(prompt, STEERED, FACTOR, 0)]
    decoder = decoder_for(model, features, requests)
    steering = Steering(model, features, requests, reference, "add")
    seen: dict[str, list[Tensor]] = {features.read_hook: [], features.write_hook: []}

    def keep(activations: Tensor, hook: Any, name: str) -> None:
        seen[name].append(activations.clone())

    spies = [(name, partial(keep, name=name)) for name in seen]
    tokens, real = left_padded([prompt, prompt], steering.device)
    with decoder.steered(steering), forward_hooks(model, spies):
        decoder.start(tokens, real, 2)
        decoder.step(torch.tensor([7, 7]))
    return list(zip(seen[features.read_hook], seen[features.write_hook], strict=True))
