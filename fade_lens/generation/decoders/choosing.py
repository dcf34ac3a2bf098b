"""Which decoder runs a model."""

from collections.abc import Sequence
from typing import cast

from torch import nn

from fade_lens.generation.decoders.base import Decoder
from fade_lens.generation.decoders.bridge import BridgeDecoder
from fade_lens.generation.decoders.compact import CompactDecoder
from fade_lens.generation.decoders.graphs import GraphDecoder
from fade_lens.generation.decoders.hooked import HookedDecoder
from fade_lens.subject.hooks import Model, device_of, has_torch_hooks, is_bridge, layer_of, running


def decoder_of(model: Model, hooks: Sequence[str], prompts: Sequence[tuple[int, ...]]) -> Decoder:
    """The fastest decoder that fits a model and its steering.

    - a bridge: the Hugging Face model that it wraps (`BridgeDecoder`);
    - a hook after the blocks, or hooks of anybody else's: the model's own forward pass to its logits (`HookedDecoder`);
    - positions by Shortformer, or a model on several devices: the same up to the final norm;
    - else a block at a time (`CompactDecoder`), on a GPU with recorded steps (`GraphDecoder`).

    Args:
        hooks: resolved names of the hook points that steering uses; none for a model that is only read.
        prompts: texts on which the decoder is tried, the shortest and the longest of what it will decode.

    Raises:
        InputError: a bridge that loses its key-value cache.
    """
    with running(model):
        if is_bridge(model):
            return BridgeDecoder(model, prompts[-1])
        if any(map(after_blocks, hooks)) or has_hooks(model):
            return HookedDecoder(model, whole=True)
        if model.cfg.positional_embedding_type == "shortformer" or getattr(model.cfg, "n_devices", 1) > 1:
            return HookedDecoder(model, whole=False)
        return (GraphDecoder if device_of(model).type == "cuda" else CompactDecoder)(model, hooks, prompts)


def after_blocks(hook: str) -> bool:
    """Whether a hook stands behind the blocks, where only the model's own forward pass to its logits fires it."""
    return layer_of(hook) is None and not hook.startswith(("hook_embed", "hook_pos_embed"))


def has_hooks(model: Model) -> bool:
    """Whether anybody's hook is attached to the model now, at a hook point or as a plain torch hook."""
    return any(map(has_torch_hooks, cast(nn.Module, model).modules()))
