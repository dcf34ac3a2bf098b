"""Continuations of prompts with features steered: many features, factors and prompts in one batch.

A request's text depends on the request alone: on its own random stream, never on the requests beside it. Special
tokens (BOS, EOS, padding and the tokenizer's others) are never generated, so every continuation has all its tokens;
a text that would have ended goes on, as it does for every factor and for the baseline.
"""

import logging
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fade_lens._util.errors import InputError
from fade_lens.generation.checks import Mode, check_mode
from fade_lens.generation.decoders.base import Decoder, Hooks, left_padded
from fade_lens.generation.decoders.choosing import decoder_of
from fade_lens.generation.next_token import Sampler
from fade_lens.subject.features import Features
from fade_lens.subject.hooks import HookTensor, Model, device_of, resolve_hook, textless_tokens
from fade_lens.subject.memory import is_out_of_memory, make_room, rows_at_once

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One continuation to write.

    Attributes:
        prompt: token ids, BOS included where the model expects it, nothing padded.
        feature: column of `Features` to steer, or None for the unsteered model.
        factor: strength, in units of the feature's reference activation (see `Mode`).
        stream: seed of this request's own random numbers; two requests that differ in nothing else differ by it.
    """

    prompt: tuple[int, ...]
    feature: int | None
    factor: float
    stream: int


def generate(
    model: Model,
    features: Features,
    requests: Sequence[Request],
    reference: Float[Tensor, " feature"],
    *,
    mode: Mode = "add",
    directions: Float[Tensor, "feature d_out"] | None = None,
    new_tokens: int = 30,
    temperature: float = 0.0,
    top_k: int | None = None,
    batch_size: int | None = None,
    decoder: Decoder | None = None,
    progress: Callable[[int], None] | None = None,
) -> Int[np.ndarray, "request {new_tokens}"]:
    """Continue each prompt while its feature is steered at every position of prompt and continuation.

    Args:
        features: those that may be steered.
        requests: what to write; they run in batches, equal prompts together.
        reference: the activation that factor 1 stands for, for each of `features`.
        mode: what steering does (see `Mode`).
        directions: what one unit of each feature adds; None for the feature's own direction.
        new_tokens: tokens of each continuation.
        temperature: 0 takes the likeliest token; else tokens are drawn, by the request's own random stream.
        top_k: draw among this many likeliest tokens only.
        batch_size: requests at a time; None for what the device has room for (see `batch_for`). Where memory runs out, the batch is halved.
        decoder: from `decoder_for`, to be used again for other requests; None to make one.
        progress: called after each batch with the number of requests it finished.

    Returns:
        Token ids of the continuations, without the prompts, in the order of the requests. Where the model's activations
        overflowed, what is chosen means nothing, and the whole row is -1.

    Raises:
        InputError: something cannot be used as given. This is found before anything is generated.
    """
    check_settings(mode, new_tokens, temperature, top_k, batch_size)
    check_requests(model, features, requests, reference, mode, new_tokens)
    resolve_hook(model, features.write_hook)  # raises if an SAE has been attached meanwhile
    found = np.zeros((len(requests), new_tokens), dtype=np.int64)
    if not requests:
        return found
    size = batch_size or batch_for(model, features, requests, mode, new_tokens)
    # Equal prompts stand together (they share work), and equal lengths (they need no padding).
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt), requests[i].prompt))
    with torch.no_grad():
        decoder = decoder or decoder_for(model, features, requests)
        size = min(size, decoder.most_rows)
        forbidden = textless_tokens(model, decoder.head.d_vocab)
        done = 0
        while done < len(order):
            rows = order[done : done + size]
            batch = [requests[i] for i in rows]
            sampler = Sampler(decoder.head, uniforms(batch, new_tokens), forbidden, temperature, top_k)
            try:
                steering = Steering(model, features, batch, reference, mode, directions)
                found[rows] = continue_batch(decoder, steering, batch, sampler, new_tokens)
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(rows) == 1:
                    raise
                decoder.most_rows = size = len(rows) // 2
                logger.info("Out of memory with %d requests at a time; going on with %d", len(rows), size)
            else:
                done += len(rows)
                if progress is not None:
                    progress(len(rows))
                continue
            make_room(device_of(model))  # once the error no longer holds what was computed
    return found


def decoder_for(model: Model, features: Features, requests: Sequence[Request]) -> Decoder:
    """A decoder for requests such as these, to be used for many batches: making it takes as long as some steps of generation.

    It copies weights and looks for hooks when it is made. Make another one if either changes.
    """
    prompts = sorted((r.prompt for r in requests), key=len)
    with torch.no_grad():
        return decoder_of(model, [features.read_hook, features.write_hook], [prompts[0], prompts[-1]])


def batch_for(model: Model, features: Features, requests: Sequence[Request], mode: Mode, new_tokens: int) -> int:
    """How many of the requests the device has room for at a time; asked before a decoder keeps keys and values of a batch."""
    encoded = 0 if mode == "add" else features.encoded_width
    return rows_at_once(model, [r.prompt for r in requests], new_tokens, encoded)


@dataclass
class Decoding:
    """What many batches share, by whoever runs them: among it a decoder, made at the first use."""

    _decoder: Decoder | None = field(default=None, init=False, compare=False)

    def decoder(self, model: Model, features: Features, requests: Sequence[Request]) -> Decoder:
        """The decoder that there is, or one for such requests."""
        self._decoder = self._decoder or decoder_for(model, features, requests)
        return self._decoder

    def __getstate__(self) -> dict[str, Any]:
        """A decoder holds copies of weights, and belongs to the model that it was made for."""
        return {**vars(self), "_decoder": None}


class Rows(Hooks, Protocol):
    """Hooks that act on each row of a batch in its own way.

    Attributes:
        device: where the model's tokens are.
        real: which positions of the tensors that pass now are no padding, or None if none is padding.
    """

    device: torch.device
    real: Bool[Tensor, "row pos"] | None


def continue_batch(
    decoder: Decoder, steering: Rows, batch: Sequence[Request], sampler: Sampler, new_tokens: int
) -> Int[np.ndarray, "request {new_tokens}"]:
    """The continuations of requests that run together."""
    tokens, real = left_padded([r.prompt for r in batch], steering.device)
    chosen: list[Tensor] = []
    overflowed = torch.zeros(len(batch), dtype=torch.bool, device=steering.device)
    with decoder.steered(steering):
        steering.real = real
        state = decoder.start(tokens, real, new_tokens)
        steering.real = None
        for step in range(new_tokens):
            if step:
                state = decoder.step(chosen[-1])
            overflowed |= (state.isnan() | state.isposinf()).any(dim=-1).to(overflowed.device)
            lost = overflowed.to(state.device).unsqueeze(-1)
            chosen.append(sampler.choose(torch.nan_to_num(state).masked_fill(lost, 0), step))
    if n := int(overflowed.sum()):
        logger.warning(
            "%d of %d continuations are meaningless from some token on: the model's activations overflowed %s. "
            "Use smaller factors, or a model in bfloat16 or float32.",
            n,
            len(batch),
            str(state.dtype).removeprefix("torch."),
        )
    return torch.stack(chosen, dim=1).masked_fill(overflowed[:, None].to(chosen[0].device), -1).cpu().numpy()


class Steering:
    """The hooks that steer each row of a batch in its own way.

    Args:
        batch: one request a row.
        reference, mode, directions: as in `generate`.

    Attributes:
        real: which positions of the tensors that pass now are no padding, or None if none is padding.
        tensors, kind: see `Recordable`. Modes that read activations do so by weights of the batch's own features, which differ in number:
            they are not recorded.
    """

    def __init__(
        self,
        model: Model,
        features: Features,
        batch: Sequence[Request],
        reference: Float[Tensor, " feature"],
        mode: Mode,
        directions: Float[Tensor, "feature d_out"] | None = None,
    ) -> None:
        self.real: Bool[Tensor, "row pos"] | None = None
        self.device = device_of(model)
        used = sorted({r.feature for r in batch if r.feature is not None})
        self._active, self._mode, self.tensors = bool(used), mode, list[Tensor]()
        self.kind: Hashable | None = None if used and mode != "add" else features
        if not used:
            return
        self._features = features.select([features.indices[column] for column in used])
        # An unsteered row borrows the first feature, for a change of nothing.
        column = torch.tensor([0 if r.feature is None else used.index(r.feature) for r in batch], device=self.device)
        steered = torch.tensor([r.feature is not None for r in batch], device=self.device)
        factors = torch.tensor([r.factor for r in batch], dtype=torch.float32, device=self.device)
        units = reference.to(self.device, torch.float32)[torch.tensor(used, device=self.device)][column]
        amount = {"scale": factors - 1, "ablate": torch.full_like(factors, -1)}.get(mode, factors * units)
        along = self._features.directions() if directions is None else directions[used]
        along = rearrange(along.to(self.device)[column], "row d -> row 1 d")
        self.tensors += [rearrange(amount, "row -> row 1 1"), along, steered]
        self._column = column
        self._current: Tensor | None = None

    def hooks(self) -> list[tuple[str, Any]]:
        """The forward hooks, by resolved name, in the order in which they fire."""
        if not self._active:
            return []
        read, write = (self._features.read_hook, self._read), (self._features.write_hook, self._write)
        return [write] if self._mode == "add" else [read, write]

    def _read(self, activations: HookTensor, hook: Any) -> None:  # noqa: ARG002
        every = self._features.encode(activations)
        column = self._column.to(every.device)[:, None, None].expand(*every.shape[:2], 1)
        self._current = every.gather(-1, column)

    def _write(self, activations: HookTensor, hook: Any) -> HookTensor:  # noqa: ARG002
        # A model spread over devices has the hook's tensor on its layer's.
        amount, directions, steered = (tensor.to(activations.device) for tensor in self.tensors)
        change = self._change(amount) * self._features.write_scale(activations) * directions
        kept = steered[:, None] if self.real is None else steered[:, None] & self.real.to(steered.device)
        change = change.where(kept[..., None], 0).to(activations.dtype)  # padding may hold anything, even NaN
        if self._features.head is not None:
            changed = activations.clone()
            changed[:, :, self._features.head] += change
            return changed
        return activations + change.reshape(*change.shape[:2], *activations.shape[2:])

    def _change(self, amount: Float[Tensor, "row 1 1"]) -> Float[Tensor, "row #pos 1"]:
        """What is added to each row's activation, in its own units."""
        if self._mode == "add":
            return amount
        assert self._current is not None, "the hook that reads fires before the one that writes"
        current = self._current.to(amount.device)
        return amount - current if self._mode == "clamp" else amount * current


def uniforms(batch: Sequence[Request], new_tokens: int) -> Float[np.ndarray, "request {new_tokens}"]:
    """Each request's own random numbers in [0, 1), one a token."""
    return np.stack([np.random.default_rng(r.stream).random(new_tokens) for r in batch])


def check_settings(mode: str, new_tokens: int, temperature: float, top_k: int | None, batch_size: int | None) -> None:
    """Raise `InputError` for a setting that cannot be used."""
    check_mode(mode)
    for name, value in (("new_tokens", new_tokens), ("top_k", top_k), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; give at least 1")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise InputError(f"temperature is {temperature}; give 0 for the likeliest token, or a positive number")


def check_requests(
    model: Model,
    features: Features,
    requests: Sequence[Request],
    reference: Float[Tensor, "reference"],
    mode: Mode,
    new_tokens: int,
) -> None:
    """Raise `InputError` for a request, or the reference activations, that cannot be used."""
    if len(reference) != len(features):
        raise InputError(f"reference has {len(reference)} values for {len(features)} features; give one for each")
    if mode != "add" and getattr(features, "sequential", False):
        raise InputError(
            f"mode {mode!r} needs the activation at each decoding step, but this SAE's activations depend on earlier "
            "positions; use mode 'add'"
        )
    context, d_vocab = int(model.cfg.n_ctx), int(model.cfg.d_vocab)
    finite = torch.isfinite(reference).tolist()
    for number, request in enumerate(requests):
        feature, where = request.feature, f"request {number}"
        if not request.prompt:
            raise InputError(f"{where} has an empty prompt; give at least one token, such as BOS")
        if not all(0 <= token < d_vocab for token in request.prompt):
            raise InputError(f"{where} has a token id outside the model's vocabulary of {d_vocab}: {request.prompt}")
        if len(request.prompt) + new_tokens > context:
            raise InputError(
                f"{where}: a prompt of {len(request.prompt)} tokens and {new_tokens} new ones exceed the model's "
                f"context of {context}; shorten the prompt or lower new_tokens"
            )
        if feature is not None and not 0 <= feature < len(features):
            raise InputError(f"{where} steers column {feature}, but there are {len(features)} features, from 0")
        if feature is not None and not finite[feature]:
            raise InputError(f"the reference activation of column {feature} is {float(reference[feature])}")
        if not math.isfinite(request.factor):
            raise InputError(f"{where} has the factor {request.factor}; give a finite number")
        if request.stream < 0:
            raise InputError(f"{where} has the stream {request.stream}; give a whole number from 0 on")
