"""A model and an SAE as they are published: the model under any of its names, loaded as the SAE asks."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from sae_lens import SAE, HookedSAETransformer
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME
from sae_lens.loading.pretrained_sae_loaders import (
    LLM_METADATA_KEYS,
    get_sae_lens_config_from_disk,
    handle_config_defaulting,
    load_sae_config_from_huggingface,
)
from sae_lens.loading.pretrained_saes_directory import get_config_overrides, get_pretrained_saes_directory
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors import SafetensorError
from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES
from transformer_lens.utilities import get_device
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.options import within
from fade_lens._util.words import clip
from fade_lens.subject.hooks import MLP_INPUT, Model, device_of, is_bridge, model_name
from fade_lens.subject.settings import DTYPES

logger = logging.getLogger(__name__)

Published = dict[str, Any]
"""What an SAE's config says of its model and hooks: `sae.cfg.metadata` as a dict."""

PROCESSING = (
    "fold_ln",
    "center_writing_weights",
    "center_unembed",
    "fold_value_biases",
    "refactor_factored_attn_matrices",
)
"""Changes of a model's weights that an SAE may ask for; TransformerLens' names."""
DTYPE = ("dtype", "torch_dtype")
"""What an SAE may ask of its model's numbers, under either of transformers' names; whoever loads may ask otherwise."""
HEEDED = (*PROCESSING, "n_ctx", "revision", "checkpoint_index", "checkpoint_value")
MACHINE = frozenset(
    [
        "device",
        "device_map",
        "n_devices",
        "max_memory",
        "low_cpu_mem_usage",
        "move_to_device",
        "cache_dir",
        "local_files_only",
        "default_prepend_bos",
        "default_padding_side",
        "first_n_layers",
    ]
)
"""What an SAE's config may say of the machine it was trained on, or what is decided elsewhere here."""
TUNED = frozenset({"it", "instruct", "chat", "base"})
NO_WORDS = frozenset({"pt", "hf", "meta", ""})
"""Words of a model's name that tell how it was tuned, and those that tell nothing."""
UNFOLDED = ("expected_average_only_in", "covariance_whitening")
"""Normalizations of an SAE's input that SAELens applies in training alone: afterwards they must be folded into the weights."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError)
"""What files that are damaged, or do not fit together, raise; weights that do not fit their config, a RuntimeError."""


def load(
    sae_release: str,
    sae_id: str,
    *,
    model: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> tuple[HookedSAETransformer | SAETransformerBridge, SAE[Any]]:
    """A published SAE and the model it was made for, loaded as the SAE asks (`model_from_pretrained_kwargs`).

    The SAE's config is read first, so that a misspelt name is told before any weights are.

    Args:
        sae_release: release in SAELens' list, such as "gpt2-small-res-jb", or a Hugging Face repository.
        sae_id: SAE within the release, such as "blocks.7.hook_resid_pre".
        model: another model than the one that the SAE names, such as its instruction-tuned sibling.
        device: "cpu", "cuda" or "mps"; the best there is unless given.
        dtype: of the model: "float32", "bfloat16" or "float16"; what the SAE asks for unless given, else float32. The SAE keeps its own.

    Returns:
        The model, a `SAETransformerBridge` where TransformerLens has no HookedTransformer of it, and the SAE.
        The SAE remembers its release and id in `sae.cfg.metadata`.

    Raises:
        InputError: an unknown release, SAE, model, device or dtype (near names are suggested), or files that cannot be read.

    Example:
        >>> model, sae = load("gpt2-small-res-jb", "blocks.7.hook_resid_pre")  # doctest: +SKIP
    """
    published = read_config(sae_release, sae_id)
    opened = load_model(model or model_of(published, sae_release), published, device=device, dtype=dtype)
    return opened, load_sae(sae_release, sae_id, device=str(device_of(opened)))


def read_config(release: str | None = None, sae_id: str | None = None, folder: Path | None = None) -> Published:
    """What the config of a published SAE, or of one in a folder, says of its model and hooks, and its widths; no weights are read.

    Raises:
        InputError: an unknown release or SAE, or a config that cannot be read.
    """
    name = str(folder) if folder is not None else f"{release}, {sae_id}"
    if folder is None:
        check_published(str(release), str(sae_id))
    try:
        if folder is not None:
            config = handle_config_defaulting(get_sae_lens_config_from_disk(folder))
        else:
            config = load_sae_config_from_huggingface(str(release), str(sae_id))
        widths = {name: config[name] for name in ("d_sae", "d_in", "d_out") if name in config}
        return widths | dict(config.get("metadata") or {}) | listed_overrides(release, sae_id)
    except UNREADABLE as error:
        raise InputError(f"the config of the SAE {name} could not be read: {brief(error)}") from error


def check_published(release: str, sae_id: str) -> None:
    """Raise `InputError` for a release or SAE that SAELens does not list; a repository, "owner/name", may hold any."""
    directory = get_pretrained_saes_directory()
    if release not in directory and "/" not in release:
        raise InputError(
            Argument("release"),
            f" {release!r} is not one of SAELens' {len(directory)} releases{suggest(release, directory)}",
        )
    saes = directory[release].saes_map if release in directory else {}
    if saes and sae_id not in saes:
        near = suggest(sae_id, saes) or f"; it has {', '.join(list(saes)[:3])}, …"
        raise InputError(Argument("release"), f" {release!r} has no SAE {sae_id!r}{near}")


def listed_overrides(release: str | None, sae_id: str | None) -> Published:
    """What SAELens' list says of an SAE in place of its config; SAELens itself uses it only for SAEs saved before its version 6."""
    if release is None or sae_id is None:
        return {}
    found = get_config_overrides(release, sae_id)
    return {key: value for key, value in found.items() if key in LLM_METADATA_KEYS and value is not None}


def model_of(published: Published, release: str) -> str:
    """The model that an SAE was made for: by its config, or by SAELens' list where only that tells.

    Where the two differ, either may be wrong and name the model's base: a loader's "Llama-3.1-8B" for the list's
    "DeepSeek-R1-Distill-Llama-8B", the list's "gemma-2-9b" for a file's "gemma-2-9b-it". So the name with more words is taken.

    Raises:
        InputError: neither tells.
    """
    listed = get_pretrained_saes_directory().get(release)
    named = [str(name) for name in (published.get("model_name"), listed and listed.model) if name]
    if not named:
        raise InputError(
            f"the SAEs of {release!r} do not say which model they were made for; give its name as ", Argument("model")
        )
    if len(named) == 2 and words_of(named[0]) != words_of(named[1]):
        return max(named, key=lambda name: len(words_of(name)))
    return next((name for name in named if official_name(name)), next((n for n in named if "/" in n), named[-1]))


def load_model(
    name: str,
    published: Published | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> HookedSAETransformer | SAETransformerBridge:
    """A model by any of its names, its weights processed as an SAE asks, and not at all otherwise.

    Args:
        name: as TransformerLens or Hugging Face has it, or a folder.
        published: the config of the SAE that it is loaded for.
        device: the best there is unless given.
        dtype: of the weights; what the SAE asks for unless given, else float32.

    Raises:
        InputError: an unknown model, device or dtype, or files that cannot be read.
    """
    official = check_model(name, device, dtype)
    options: dict[str, Any] = {
        "device": None if device is None else str(device),
        "dtype": checked_dtype(dtype or dtype_asked(published or {})),
    }
    asked, given = asked_of_model(published or {}), (published or {}).get("model_from_pretrained_kwargs") or {}
    if left_out := sorted({*given} - {*HEEDED, *DTYPE, "checkpoint_label"} - MACHINE):
        logger.warning(
            "The SAE asks that its model be loaded with %s, which is left out; load the model yourself if it matters.",
            ", ".join(f"{option}={given[option]!r:.40}" for option in left_out),
        )
    try:
        if official is not None:
            return HookedSAETransformer.from_pretrained_no_processing(official, **options, **asked)
        config = AutoConfig.from_pretrained(name)
        if config.get_text_config() is not config:  # a model that sees: its half that reads and writes is all it takes
            options |= text_model(name, **options, revision=asked.get("revision"))
        processing = {option: bool(asked.pop(option, False)) for option in PROCESSING}
        bridge = SAETransformerBridge.boot_transformers(name, **options, **asked)
        if any(processing.values()):
            bridge.enable_compatibility_mode(disable_warnings=True, **processing)
        return bridge
    except UNREADABLE as error:
        raise InputError(Argument("model"), f" {name!r} could not be loaded: {brief(error)}") from error


def check_model(
    name: str, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> str | None:
    """The name under which TransformerLens has a HookedTransformer of a model, or None where it takes a bridge; no weights are read.

    Raises:
        InputError: an unknown model, device or dtype.
    """
    check_device(device)
    checked_dtype(dtype or "float32")
    if (official := official_name(name)) is None:
        try:
            AutoConfig.from_pretrained(name)
        except UNREADABLE as error:
            near = suggest(name, [*aliases(), *(r.model for r in get_pretrained_saes_directory().values())])
            raise InputError(Argument("model"), f" {name!r} could not be loaded: {brief(error)}{near}") from error
    return official


def dtype_asked(published: Published) -> str:
    """The dtype that an SAE asks its model to have: float32 where it says nothing, or nothing that models are run in here."""
    asked = published.get("model_from_pretrained_kwargs")
    named = [str(asked[name]) for name in DTYPE if asked.get(name)] if isinstance(asked, Mapping) else []
    found = named[0].removeprefix("torch.") if named else "float32"
    if found in DTYPES:
        return found
    logger.warning("The SAE asks that its model be in %.40s; it is loaded in float32 (--dtype takes another).", found)
    return "float32"


def load_tokenizer(name: str) -> Any:
    """A model's tokenizer without its weights, or None where there is none to be read by itself."""
    try:
        return AutoTokenizer.from_pretrained(official_name(name) or name)
    except UNREADABLE:
        return None


def text_model(name: str, device: str | None, dtype: torch.dtype, revision: str | None) -> dict[str, Any]:
    """The language model of a model of several media, and what a bridge must be told of it."""
    device = device or str(get_device())
    model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, attn_implementation="eager", revision=revision)
    return {
        "device": device,
        "hf_model": model.to(device),
        "hf_config_overrides": {"architectures": [type(model).__name__]},
    }


def asked_of_model(published: Published) -> dict[str, Any]:
    """The options of `model_from_pretrained_kwargs` that change activations, by TransformerLens' names.

    The config is a file from elsewhere: nothing else of it reaches a loader, such as code to be trusted.
    """
    asked = published.get("model_from_pretrained_kwargs") or {}
    if not isinstance(asked, Mapping):
        raise InputError(f"the SAE's model_from_pretrained_kwargs are {asked!r:.80}, not a table of options")
    wanted = {"checkpoint_value" if k == "checkpoint_label" else k: v for k, v in asked.items() if v is not None}
    return {name: wanted[name] for name in HEEDED if name in wanted}


def load_sae(
    release: str | None = None, sae_id: str | None = None, folder: Path | None = None, *, device: str = "cpu"
) -> SAE[Any]:
    """The SAE of a release, or of a folder that SAELens saved, its activation scale folded in where a file tells it.

    Args:
        release, sae_id: in SAELens' list, or a repository and a place in it.
        folder: in place of these.
        device: where its weights are to lie.

    Raises:
        InputError: an unknown release or SAE, or files that cannot be read.
    """
    if folder is None:
        check_published(str(release), str(sae_id))
    try:
        with warnings.catch_warnings():
            # The model is loaded as the SAE asks, or checked where the user loaded it.
            warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty model_from_pretrained_kwargs")
            if folder is None:
                sae = SAE.from_pretrained(str(release), str(sae_id), device=device)
                kept = {"release": release, "sae_id": sae_id, **listed_overrides(release, sae_id)}
                for key, value in kept.items():  # SAELens does not keep them
                    sae.cfg.metadata[key] = value
                named = sae.cfg.metadata.model_name
                if named and words_of(made_for := model_of({"model_name": named}, str(release))) != words_of(named):
                    message = "The SAE's config names the model %r, SAELens' list %r, which is taken to be right."
                    logger.warning(message, named, made_for)
                    sae.cfg.metadata.model_name = made_for
                return sae
            sae = SAE.load_from_disk(folder, device=device)
        scale, scaler = folder / ACTIVATION_SCALER_CFG_FILENAME, ActivationScaler()
        if sae.cfg.normalize_activations in UNFOLDED and scale.exists():  # a checkpoint of SAELens' training
            scaler.load(scale)
            if (white := scaler.whitening) is not None:
                sae.fold_activation_whitening(white.mean, white.matrix, white.inverse_matrix)
            elif scaler.scaling_factor:
                sae.fold_activation_norm_scaling_factor(float(scaler.scaling_factor))
        return sae
    except UNREADABLE as error:
        raise InputError(f"SAE {folder or f'{release}, {sae_id}'} could not be loaded: {brief(error)}") from error


@cache
def aliases() -> Mapping[str, str]:
    """TransformerLens' official model names, by each of their names in lower case, with and without the organization."""
    known = {alias.lower(): name for name in OFFICIAL_MODEL_NAMES for alias in (name, *MODEL_ALIASES.get(name, ()))}
    return {**{alias.split("/")[-1]: name for alias, name in known.items()}, **known}


def official_name(name: str) -> str | None:
    """The name under which TransformerLens has a HookedTransformer of a model, or None; a folder is never one."""
    return None if Path(name).is_dir() else aliases().get(name.lower())


def other_model(made_for: Any, model: str) -> Iterator[str]:
    """What to say where an SAE was made for a model of another name; the same model has many names."""
    if not made_for or words_of(made_for) == words_of(model):
        return
    if words_of(made_for) - TUNED == words_of(model) - TUNED:
        yield (
            f"The SAE was made for {made_for!r}, the model is {model!r}, its sibling with other tuning. SAEs often carry over "
            "between a base model and its instruction-tuned one; how well this one does is not measured here."
        )
    else:
        yield f"The SAE was made for {made_for!r}, the model is {model!r}: scores mean little if they differ."


def words_of(name: Any) -> frozenset[str]:
    """The words of a model's official name, without the organization and what tells no model from another."""
    plain = str(name).rstrip("/").split("/")[-1].lower()
    return (
        frozenset(
            re.split(r"[-_\s]+", aliases().get(str(name).lower(), aliases().get(plain, plain)).split("/")[-1].lower())
        )
        - NO_WORDS
    )


def otherwise_loaded(published: Any, model: Model, hook: str) -> Iterator[str]:
    """What can be seen on a model's weights to differ from what an SAE asks for, each with the line that loads it rightly."""
    asked = asked_of_model({"model_from_pretrained_kwargs": published.model_from_pretrained_kwargs})
    name, kwargs = published.model_name or model_name(model), {k: v for k, v in asked.items() if v}
    load = f"HookedSAETransformer.from_pretrained_no_processing({name!r}{''.join(f', {k}={v!r}' for k, v in kwargs.items())})"
    if is_bridge(model) and any(k in PROCESSING for k in kwargs):
        chosen = ", ".join(f"{k}={bool(asked.get(k))}" for k in PROCESSING)
        load = f"SAETransformerBridge.boot_transformers({name!r}) and then model.enable_compatibility_mode({chosen})"
    seen = {"center_writing_weights": centred(model), "fold_value_biases": value_biases_folded(model)}
    if hook.endswith(MLP_INPUT):  # elsewhere the folded weights of a norm change nothing
        seen["fold_ln"] = str(model.cfg.normalization_type).endswith("Pre")
    for option, found in seen.items():
        wanted = bool(asked.get(option))
        if found is not None and found != wanted and (wanted or option != "fold_value_biases"):
            yield (
                f"The SAE was trained on a model with {option}={wanted}, but this one's weights show {option}={found}, which "
                f"changes the activations at {hook!r}. Load it with {load}, or both with fade_lens.load."
            )


def centred(model: Model) -> bool | None:
    """Whether the weights that write to the residual stream have no mean; None where TransformerLens cannot centre them."""
    if not str(model.cfg.normalization_type).startswith("LN"):
        return None
    rows = cast(Any, model).W_E.detach()[:4096].float()
    return bool(rows.mean(-1).norm() < 1e-3 * rows.std(-1).norm())


def value_biases_folded(model: Model) -> bool | None:
    """Whether no head of a `HookedTransformer` has a value bias; a bridge is not looked into."""
    return None if is_bridge(model) else not bool(cast(Any, model).b_V.any())


def check_device(device: str | torch.device | None) -> None:
    """Raise `InputError` for a device that is unknown or not there."""
    try:
        kind = "cpu" if device is None else torch.device(device).type
    except RuntimeError as error:
        raise InputError(Argument("device"), f" is {str(device)!r}; give cpu, cuda or mps") from error
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if kind in there and not there[kind]():
        raise InputError(Argument("device"), f" is {str(device)!r}, but this machine or its PyTorch has none; give cpu")


def checked_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype of a name. Raises `InputError` for one that models are not run in here."""
    name = str(dtype).removeprefix("torch.")
    within("dtype", name, choices=DTYPES)
    return getattr(torch, name)


def brief(error: Exception) -> str:
    """The first line of an error, for TransformerLens lists every model that it knows, and the second where that only announces it."""
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    said = [first, *(line.strip() for line in others[:1] if first.endswith(":"))]
    return clip(" ".join(said).rstrip("."), 200)
