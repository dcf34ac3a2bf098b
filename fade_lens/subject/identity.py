"""What tells one model, SAE or tokenizer from another: hashes of all that they hold, and every setting that may change a number.

Two that give the same numbers have the same identity, wherever they lie and whatever they are called. A setting is left out only
where it is known to change no number.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from enum import Enum
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from fade_lens._util.errors import InputError
from fade_lens.subject.hooks import Model, has_torch_hooks, is_bridge, special_tokens

CHUNK = 2**25
"""Bytes hashed at a time: what a piece on another device, or one that is not contiguous, is copied to."""
HEX = 16
"""Digits of a hash that are kept."""

NOT_NUMBERS = {
    "device", "n_devices", "seed", "init_mode", "init_weights", "initializer_range", "n_params", "trust_remote_code",
    "architectures", "model_name", "tokenizer_name", "name", "name_or_path", "transformers_version", "id2label", "label2id",
    "metadata", "from_checkpoint", "checkpoint_index", "checkpoint_label_type", "checkpoint_value", "use_attn_result",
    "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in", "use_hook_tokens", "use_cache", "output_attentions",
    "output_hidden_states", "return_dict", "max_seq_len_cached", "training", "is_caching", "context_level",
    "hook_z_reshaping_mode",
}  # fmt: skip
"""Settings of configs and modules that change no activation: names, places, how weights were first made, which hooks fire, what a
module notes down while it runs."""


def model_identity(model: Model) -> dict[str, Any]:
    """What decides a model's numbers: sizes, weights, modules, settings, tokenizer, and the hook points where somebody's hooks are attached.

    What an attached hook does cannot be told; that there is one, can.
    """
    module = cast(nn.Module, model)
    found: dict[str, Any] = {
        "n_layers": int(model.cfg.n_layers),
        "d_model": int(model.cfg.d_model),
        "weights": weights_hash(module),
        "modules": modules_hash(module),
        "tokenizer": tokenizer_hash(model.tokenizer),
        "settings": settings_of(model.cfg),
    }
    if is_bridge(model):
        found["settings"]["hf"] = settings_of(cast(Any, model).original_model.config)
    if hooks := [name for name, point in model.hook_dict.items() if point.fwd_hooks]:
        found["hooks"] = sorted(hooks)
    return found


def sae_identity(sae: Any) -> dict[str, Any]:
    """What decides an SAE's numbers: architecture, weights, modules and settings; of one in training form, those of its inference form."""
    cfg = sae.cfg
    inference = getattr(cfg, "get_inference_sae_cfg_dict", None)
    return {
        "architecture": cfg.architecture(),
        "weights": weights_hash(sae),
        "modules": modules_hash(sae, seen=("d_head",)),
        "settings": settings_of(cfg if inference is None else {**inference(), "dtype": cfg.dtype}),
    }


def weights_hash(module: nn.Module) -> str:
    """A hash of every parameter and buffer, to the last bit: name, dtype, shape and bytes.

    It is the same on every device and for all strides.

    Raises:
        InputError: a tensor has no values (it lies on the meta device).
    """
    digests: dict[str, Future[str] | str] = {}
    known: dict[int, Future[str]] = {}  # a tied weight is hashed once and counts under all its names
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # hashing large pieces holds no lock
        for path, part in module.named_modules():
            offloaded = hasattr(part, "_hf_hook") and any(t.is_meta for t in _tensors(part).values())
            with _loaded(part) if offloaded else nullcontext():
                for name, tensor in _tensors(part).items():
                    key = f"{path}.{name}"
                    if tensor.is_meta:
                        raise InputError(
                            f"{key} of {type(module).__name__} has no values (meta device); load its weights"
                        )
                    if offloaded:  # it is there only now
                        digests[key] = digest(tensor)
                        continue
                    if id(tensor) not in known:
                        known[id(tensor)] = pool.submit(digest, tensor)
                    digests[key] = known[id(tensor)]
    return _hash({key: one if isinstance(one, str) else one.result() for key, one in digests.items()})


def digest(tensor: Tensor) -> str:
    """A hash of one tensor's dtype, shape and bytes."""
    hasher = hashlib.sha256()
    _update(hasher, tensor.detach())
    return hasher.hexdigest()


def modules_hash(module: nn.Module, seen: tuple[str, ...] = ()) -> str:
    """A hash of what the modules are (activation functions are such) and of the plain values that each keeps beside its weights.

    `seen` are attributes in which the outermost module notes what it has seen.
    """
    own = {name: value for name, value in vars(module).items() if name not in seen}
    parts = {
        path: [type(part).__name__, settings_of(vars(part))] if path else settings_of(own)
        for path, part in module.named_modules()
        if not isinstance(part, HookPoint)
    }
    hooked = [path for path, part in module.named_modules() if path in parts and has_torch_hooks(part)]
    return _hash([parts, hooked] if hooked else parts)


def tokenizer_hash(tokenizer: Any) -> str | None:
    """A hash of how a tokenizer cuts texts and puts them together again, and of its special tokens; not of how it pads or truncates."""
    if tokenizer is None:
        return None
    special = [tokenizer.bos_token_id, *sorted(special_tokens(tokenizer))]
    about = (tuple(special), len(tokenizer), plain(getattr(tokenizer, "clean_up_tokenization_spaces", None)))
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        return _backend_hash(backend.to_str(), *about)
    with TemporaryDirectory() as folder:
        files = [Path(file) for file in tokenizer.save_vocabulary(folder) or () if file]
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        return _hash([[sorted(tokenizer.get_vocab().items()), hashes], *about])


@functools.lru_cache(maxsize=1)  # a large vocabulary takes seconds, and a session asks about one model again and again
def _backend_hash(state: str, *about: Any) -> str:
    """The hash of a fast tokenizer, of all that it is as JSON."""
    unused = ("padding", "truncation", "post_processor")  # BOS is put in front of texts by hand
    return _hash([{key: value for key, value in json.loads(state).items() if key not in unused}, *about])


def settings_of(config: Any) -> dict[str, Any]:
    """The settings of a config, or the plain values among a module's attributes, as JSON values; None and those of `NOT_NUMBERS` left out."""
    given = config if isinstance(config, Mapping) else config.to_dict() if hasattr(config, "to_dict") else vars(config)
    chosen = {str(key): value for key, value in cast(Mapping[Any, Any], given).items()}
    found = {key: plain(value) for key, value in chosen.items() if not key.startswith("_") and key not in NOT_NUMBERS}
    return {key: value for key, value in sorted(found.items()) if value is not None}


def plain(value: Any) -> Any:
    """A setting as JSON keeps it and compares it: numbers exactly, functions by their names; None for what is no plain value."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if float(value) - float(value) == 0 else str(float(value))  # JSON's NaN equals nothing
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return settings_of(cast(Any, value))
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast(list[Any], value)]
    if isinstance(value, functools.partial):
        return [plain(value.func), plain(value.args), plain(value.keywords)]
    name = getattr(value, "__qualname__", None)
    if (
        callable(value) and name is not None and "<locals>" not in name
    ):  # closures stand for settings that are seen elsewhere
        return str(name)
    return None


def _tensors(part: nn.Module) -> dict[str, Tensor]:
    """The tensors of one module, those of the modules inside it left out."""
    found: dict[str, Tensor] = {}
    for named in (nn.Module.named_parameters, nn.Module.named_buffers):  # a bridge's own leave tied ones out
        found |= dict(named(part, recurse=False, remove_duplicate=False))
    # A bridge may compute with processed weights that it keeps as plain attributes.
    found |= {k: v for k, v in vars(part).items() if k.startswith("_processed") and isinstance(v, Tensor)}
    if any(not t.is_floating_point() and not t.is_meta for t in part.parameters(recurse=False)):
        # A quantized weight's scales lie beside it, where only the module's own state knows them.
        inside = tuple(f"{name}." for name, _ in part.named_children())
        found |= {k: v for k, v in part.state_dict().items() if isinstance(v, Tensor) and not k.startswith(inside)}
    return found


def _loaded(part: nn.Module) -> Any:
    """The module with the weights that were moved to the processor's memory or to disk."""
    from accelerate.utils import align_module_device

    return align_module_device(part, torch.device("cpu"))


def _update(hasher: Any, tensor: Tensor) -> None:
    hasher.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    if hasattr(tensor, "__tensor_flatten__"):  # a tensor made of others
        names, context = cast(Any, tensor).__tensor_flatten__()
        hasher.update(repr(context).encode())
        for name in names:
            _update(hasher, getattr(tensor, name))
        return
    for piece in _pieces(tensor.resolve_conj().resolve_neg()):
        hasher.update(piece.contiguous().reshape(-1).view(torch.uint8).cpu().numpy())


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor's elements in their order, `CHUNK` bytes at a time where its strides allow it."""
    if tensor.numel():
        rows = tensor.reshape(-1) if tensor.ndim == 0 or tensor.is_contiguous() else tensor
        yield from rows.split(max(1, CHUNK * len(rows) // (tensor.numel() * tensor.element_size())))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:HEX]
