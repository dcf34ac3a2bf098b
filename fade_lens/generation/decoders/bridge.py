"""Any bridge through the Hugging Face model it wraps, with that model's own cache of keys and values."""

import inspect
from importlib.metadata import version
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fade_lens._util.errors import InputError
from fade_lens.generation.decoders.base import Decoder, Real, State, Tokens, left_padded
from fade_lens.generation.decoders.heads import Logits
from fade_lens.subject.hooks import Model, device_of, model_name

CACHED = 0.2
"""How far logits with a cache may be from those without, relative to the spread of the logits: half precision stays far
below, a lost cache is far above."""


class BridgeDecoder(Decoder):
    """A bridge, tried on a prompt when it is made.

    Raises:
        InputError: with the cache the model says something else than without, or keeps none.
    """

    def __init__(self, model: Model, prompt: tuple[int, ...]) -> None:
        self.model: Any = model
        accepted = inspect.signature(self.model.original_model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        d_vocab = self.model.original_model.get_output_embeddings().weight.shape[0]
        self.head = Logits(int(d_vocab), device_of(model))
        # Without learned positions, to attend to equal tokens is to attend to one: a different one must come before the last.
        tokens, real = left_padded([((prompt[-1] + 1) % d_vocab, *prompt)], device_of(model))
        whole = self.start(tokens, real, 1).float()
        self.start(tokens[:, :-1], real[:, :-1], 1)
        if (self.step(tokens[:, -1]) - whole).norm() > CACHED * (whole - whole.mean()).norm():
            raise InputError(
                f"the bridge around {model_name(model)} loses its key-value cache, so that steered texts would be wrong: "
                f"transformers {version('transformers')} does not go with TransformerLens {version('transformer-lens')}. "
                "Install fade-lens' own requirements again, or take a HookedTransformer"
            )

    def start(self, tokens: Tokens, real: Real, new_tokens: int) -> State:  # noqa: ARG002
        self._cache, self._real = None, real.long()
        return self._forward(tokens)

    def step(self, tokens: Int[Tensor, " row"]) -> State:
        self._real = F.pad(self._real, (0, 1), value=1)
        return self._forward(tokens[:, None])

    def states(self, tokens: Tokens) -> Float[Tensor, "row pos d_state"]:
        return self.model(tokens)

    def _forward(self, tokens: Tokens) -> State:
        logits, self._cache = self.model(
            tokens,
            attention_mask=self._real,
            past_key_values=self._cache,
            use_cache=True,
            return_type="logits_and_cache",
            **self._options,
        )
        if self._cache is None:
            raise InputError(f"{model_name(self.model)} keeps no key-value cache, which steered generation needs.")
        return logits[:, -1]
