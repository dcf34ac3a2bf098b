"""Which decoder runs a model."""

from collections.abc import Sequence
from typing import cast

from torch import nn

from fade_lens.generation.decoders.base import Decoder
from fade_lens.generation.decoders.bridge import BridgeDecoder
from fade_lens.generation.decoders.compact import CompactDecoder
from fade_lens.generation.decoders.hooked import HookedDecoder
from fade_lens.subject.hooks import Model, is_bridge, layer_of, running


def decoder_of(model: Model, hooks: Sequence[str], prompts: Sequence[tuple[int, ...]]) -> Decoder:
    """The fastest decoder for a model that will have forward hooks at these resolved names, tried on the prompts."""
    with running(model):
        if is_bridge(model):
            return BridgeDecoder(model, prompts[-1])
        after_blocks = any(layer_of(h) is None and not h.startswith(("hook_embed", "hook_pos_embed")) for h in hooks)
        if after_blocks or has_hooks(model):
            return HookedDecoder(model, whole=True)
        if model.cfg.positional_embedding_type == "shortformer" or getattr(model.cfg, "n_devices", 1) > 1:
            return HookedDecoder(model, whole=False)
        return CompactDecoder(model, hooks, prompts)


def has_hooks(model: Model) -> bool:
    """Whether anybody's hook is attached to the model now, at a hook point or as a plain torch hook (torch lists these in no public place)."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in cast(nn.Module, model).modules())
