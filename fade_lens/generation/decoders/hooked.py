"""Any `HookedTransformer` through its own forward pass and its own cache of keys and values."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

from fade_lens.generation.decoders.base import Decoder, Real, State, Tokens, final_norm, unembedding
from fade_lens.generation.decoders.heads import Logits
from fade_lens.subject.hooks import Model, device_of


class HookedDecoder(Decoder):
    """The plain way.

    Args:
        whole: take the logits as the model makes them, which a hook after the blocks needs; else only the positions that
            are asked for are unembedded, outside the model.
    """

    def __init__(self, model: Model, *, whole: bool) -> None:
        self.model: Any = model
        self._whole = whole
        self.head = Logits(int(model.cfg.d_vocab_out), device_of(model)) if whole else unembedding(model)

    def start(self, tokens: Tokens, real: Real, new_tokens: int) -> State:  # noqa: ARG002
        self._cache = TransformerLensKeyValueCache.init_cache(self.model.cfg, device_of(self.model), len(tokens))
        return self._last(tokens, real)

    def step(self, tokens: Int[Tensor, " row"]) -> State:
        return self._last(tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.bool))

    def states(self, tokens: Tokens) -> Float[Tensor, "row pos d_state"]:
        stop = {} if self._whole else {"stop_at_layer": self.model.cfg.n_layers}
        state = self.model(tokens, padding_side="right", **stop)
        return state if self._whole else final_norm(self.model, state)

    def _last(self, tokens: Tokens, real: Real) -> State:
        options: dict[str, Any] = {"attention_mask": real.int(), "past_kv_cache": self._cache}
        if self._whole:
            return self.model(tokens, **options)[:, -1]
        residual = self.model(tokens, stop_at_layer=self.model.cfg.n_layers, **options)
        return final_norm(self.model, residual[:, -1:])[:, 0]
