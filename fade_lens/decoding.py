"""One decoding step of any model, and the choice of the next token from what it gives."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.utilities.activation_functions import apply_softcap

from fade_lens.errors import InputError
from fade_lens.models import Model, device_of, forward_hooks, is_bridge, layer_of, model_name

# Vocabulary rows unembedded at a time: enough for the matrix product to run at full speed, few enough that the
# logits stay in the processor's cache. The full logits of Gemma for 350 rows would be 367 MB.
CHUNK = 8192


class Head(ABC):
    """From the state of a row's last position to its logits, a chunk of the vocabulary at a time."""

    d_vocab: int

    @property
    def starts(self) -> range:
        """The first token id of each chunk."""
        return range(0, self.d_vocab, CHUNK)

    @abstractmethod
    def logits(self, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        """A new tensor with the logits of the chunk's tokens, float32 or wider."""


class Logits(Head):
    """The state is the logits themselves."""

    def __init__(self, d_vocab: int) -> None:
        self.d_vocab = d_vocab

    def logits(self, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        return state[:, start : start + CHUNK].to(torch.float32, copy=True)


class Unembedding(Head):
    """The state is the final residual after its norm; logits are made by W_U, b_U and the model's soft cap."""

    def __init__(
        self, W_U: Float[Tensor, "d_model d_vocab"], b_U: Float[Tensor, " d_vocab"] | None, soft_cap: float
    ) -> None:
        self.d_vocab, self.soft_cap = W_U.shape[1], soft_cap
        self._W_U, self._b_U = W_U.detach(), b_U.detach() if b_U is not None and bool(b_U.any()) else None

    def logits(self, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        chunk = slice(start, start + CHUNK)
        bias = None if self._b_U is None else self._b_U[chunk]
        return apply_softcap(F.linear(state, self._W_U[:, chunk].T, bias).float(), self.soft_cap)


class Sampler:
    """Chooses each row's next token: the likeliest, or by the inverse of its distribution at the row's own numbers.

    Args:
        uniforms: numbers in [0, 1), one a new token; they are all the randomness there is, so a row's tokens do not
            depend on the other rows.
        forbidden: token ids that are never chosen.
        temperature: 0 for the likeliest token.
        top_k: sample among the `top_k` likeliest only.
    """

    def __init__(
        self,
        uniforms: Float[np.ndarray, "row new"],
        forbidden: Int[Tensor, " forbidden"],
        temperature: float,
        top_k: int | None,
        device: torch.device,
    ) -> None:
        self._uniforms = torch.tensor(uniforms, dtype=torch.float32 if device.type == "mps" else torch.float64).to(
            device
        )
        self._temperature, self._top_k = temperature, top_k
        self._forbidden = {
            int(c): (forbidden[forbidden // CHUNK == c] - c * CHUNK).to(device) for c in (forbidden // CHUNK).unique()
        }

    def choose(self, head: Head, state: Float[Tensor, "row d_state"], step: int) -> Int[Tensor, " row"]:
        """The token at this step for each row."""
        if self._temperature == 0 or self._top_k == 1:
            return self._likeliest(head, state)
        if self._top_k is not None:
            return self._among_top(head, state, self._uniforms[:, step, None], self._top_k)
        return self._among_all(head, state, self._uniforms[:, step, None])

    def _logits(self, head: Head, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        logits = head.logits(state, start)
        ids = self._forbidden.get(start // CHUNK)
        return logits if ids is None else logits.index_fill_(1, ids, -torch.inf)

    def _likeliest(self, head: Head, state: Float[Tensor, "row d_state"]) -> Int[Tensor, " row"]:
        value, token = self._logits(head, state, 0).max(dim=-1)
        for start in head.starts[1:]:
            other, at = self._logits(head, state, start).max(dim=-1)
            better = other > value
            value, token = torch.where(better, other, value), torch.where(better, at + start, token)
        return token

    def _among_top(
        self, head: Head, state: Float[Tensor, "row d_state"], uniforms: Float[Tensor, "row 1"], k: int
    ) -> Int[Tensor, " row"]:
        top: list[tuple[Tensor, Tensor]] = []
        for start in head.starts:
            logits = self._logits(head, state, start)
            value, at = logits.topk(min(k, logits.shape[1]), dim=-1)
            top.append((value, at + start))
        values, tokens = (torch.cat(parts, dim=-1) for parts in zip(*top, strict=True))
        values, best = values.topk(min(k, values.shape[1]), dim=-1)
        tokens, order = tokens.gather(-1, best).sort(dim=-1)  # by id: rounding cannot swap neighbours
        return tokens.gather(-1, self._drawn(values.gather(-1, order), uniforms)).squeeze(-1)

    def _among_all(
        self, head: Head, state: Float[Tensor, "row d_state"], uniforms: Float[Tensor, "row 1"]
    ) -> Int[Tensor, " row"]:
        # Which chunk first, then which token in it: only the chosen chunks' logits are made twice.
        masses = [(self._logits(head, state, start) / self._temperature).logsumexp(-1) for start in head.starts]
        shares = torch.stack(masses, dim=-1).to(uniforms.dtype).softmax(-1)
        chunk = inverse_cdf(shares, uniforms)
        before = shares.cumsum(-1).gather(-1, chunk) - shares.gather(-1, chunk)
        within = (uniforms - before) / shares.gather(-1, chunk)
        tokens = torch.empty(len(state), dtype=torch.long, device=state.device)
        for c in chunk.unique().tolist():
            rows, start = (chunk.squeeze(-1) == c).nonzero().squeeze(-1), head.starts[c]
            drawn = self._drawn(self._logits(head, state[rows], start), within[rows])
            tokens[rows] = drawn.squeeze(-1) + start
        return tokens

    def _drawn(self, logits: Float[Tensor, "row option"], uniforms: Float[Tensor, "row 1"]) -> Int[Tensor, "row 1"]:
        return inverse_cdf((logits / self._temperature).to(uniforms.dtype).softmax(-1), uniforms)


def inverse_cdf(shares: Float[Tensor, "row option"], uniforms: Float[Tensor, "row 1"]) -> Int[Tensor, "row 1"]:
    """The option whose stretch of the cumulated shares holds the number; one of share 0 is never chosen."""
    cumulated = shares.cumsum(-1)
    # The number is kept below the total, which rounding may leave short of 1.
    total = torch.nextafter(cumulated[:, -1:], torch.zeros_like(uniforms))
    return torch.searchsorted(cumulated, uniforms.clamp(min=0).minimum(total), right=True)


@runtime_checkable
class Hooks(Protocol):
    """What a decoder needs to know of steering."""

    def hooks(self) -> Sequence[tuple[str, Any]]:
        """Forward hooks by resolved name."""
        ...


class Decoder(ABC):
    """A model that takes a batch of prompts and then a token a row at a time, keeping keys and values between."""

    head: Head

    def __init__(self, model: Model) -> None:
        self._model = cast(Any, model)

    def steered(self, steering: Hooks) -> AbstractContextManager[None]:
        """The time in which the steering's hooks act on this decoder's model."""
        return forward_hooks(self._model, steering.hooks())

    @abstractmethod
    def start(
        self, tokens: Int[Tensor, "row pos"], real: Bool[Tensor, "row pos"], new_tokens: int
    ) -> Float[Tensor, "row d_state"]:
        """Begin with left-padded prompts, to be followed by `new_tokens`; the state of each row's last position."""

    @abstractmethod
    def step(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row d_state"]:
        """Append one token to each row; the state of its position."""


class HookedDecoder(Decoder):
    """Any `HookedTransformer` through its own forward pass and cache.

    Only the last position is unembedded, outside the model, unless a hook stands after the blocks (`whole`).
    """

    def __init__(self, model: Model, *, whole: bool) -> None:
        super().__init__(model)
        self._whole = whole
        self.head = (
            Logits(int(model.cfg.d_vocab_out))
            if whole
            else Unembedding(self._model.W_U, self._model.b_U, float(model.cfg.output_logits_soft_cap))
        )

    def start(
        self,
        tokens: Int[Tensor, "row pos"],
        real: Bool[Tensor, "row pos"],
        new_tokens: int,  # noqa: ARG002
    ) -> Float[Tensor, "row d_state"]:
        self._cache = TransformerLensKeyValueCache.init_cache(self._model.cfg, device_of(self._model), len(tokens))
        return self._forward(tokens, real)

    def step(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row d_state"]:
        return self._forward(tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.bool))

    def _forward(self, tokens: Int[Tensor, "row pos"], real: Bool[Tensor, "row pos"]) -> Float[Tensor, "row d_state"]:
        options: dict[str, Any] = {"attention_mask": real.int(), "past_kv_cache": self._cache}
        if self._whole:
            return self._model(tokens, **options)[:, -1]
        residual = self._model(tokens, stop_at_layer=self._model.cfg.n_layers, **options)[:, -1:]
        return (residual if self._model.cfg.normalization_type is None else self._model.ln_final(residual))[:, 0]


class BridgeDecoder(Decoder):
    """Any bridge through the Hugging Face model it wraps, with that model's cache."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        accepted = inspect.signature(self._model.original_model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.head = Logits(int(self._model.original_model.get_output_embeddings().weight.shape[0]))

    def start(
        self,
        tokens: Int[Tensor, "row pos"],
        real: Bool[Tensor, "row pos"],
        new_tokens: int,  # noqa: ARG002
    ) -> Float[Tensor, "row d_state"]:
        self._cache, self._real = None, real.long()
        return self._forward(tokens)

    def step(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row d_state"]:
        self._real = F.pad(self._real, (0, 1), value=1)
        return self._forward(tokens[:, None])

    def _forward(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "row d_state"]:
        logits, self._cache = self._model(
            tokens,
            attention_mask=self._real,
            past_key_values=self._cache,
            use_cache=True,
            return_type="logits_and_cache",
            **self._options,
        )
        if self._cache is None:
            raise InputError(f"{model_name(self._model)} keeps no key-value cache, which steered generation needs.")
        return logits[:, -1]


def decoder_of(model: Model, hooks: Sequence[str]) -> Decoder:
    """The decoder for a model that will have forward hooks at these resolved names."""
    if is_bridge(model):
        return BridgeDecoder(model)
    after_blocks = any(layer_of(h) is None and not h.startswith(("hook_embed", "hook_pos_embed")) for h in hooks)
    return HookedDecoder(model, whole=after_blocks or has_hooks(model))


def has_hooks(model: Model) -> bool:
    """Whether anybody's hook is attached to the model now, at a hook point or as a plain torch hook."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in cast(torch.nn.Module, model).modules())
