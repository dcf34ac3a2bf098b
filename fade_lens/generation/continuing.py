"""Continuations of a run's prompts with features steered, each set written once and kept; no judge is needed."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import rng, stream
from fade_lens._util.workers import HERE, Workers
from fade_lens.generation.checks import Mode
from fade_lens.generation.continuations import (
    FLUENCY_PROMPTS,
    UNSTEERED,
    ContinuationStore,
    Fluency,
    MemoryContinuations,
    Steered,
    Texts,
)
from fade_lens.generation.controls import control_directions
from fade_lens.generation.decoders.base import Decoder
from fade_lens.generation.fluency import breaks, negative_log_likelihood, repeated_share
from fade_lens.generation.steering import Decoding, Request, batch_for, decoder_for, generate
from fade_lens.subject.activations import Progress
from fade_lens.subject.features import Features
from fade_lens.subject.hooks import Model, device_of, dtype_of
from fade_lens.subject.memory import largest_rows
from fade_lens.subject.tokens import TokenizedTexts, after_bos, continued

BATCHES = 4
"""Batches of continuations that are written before they are kept: what is lost at most, and what a worker is given at a time."""


@dataclass
class Writing(Decoding):
    """How a run's continuations are drawn: what `Continuer` is told. The size of a batch is found at the first use."""

    reference: Float[np.ndarray, " feature"]
    prompts: Sequence[tuple[int, ...]]
    mode: Mode
    seed: int
    likelihoods: int
    drawn: dict[str, Any]
    batch_size: int | None = field(default=None, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """A batch fits the device of the model that it was found for."""
        return {**super().__getstate__(), "batch_size": None}


class Continuer:
    """Continues prompts with features of one source steered, many features and factors in one batch.

    What is written depends on the seed, the feature and the prompt's number alone: a feature's continuations at two factors,
    or under a control, share their random numbers, so that they differ by steering and not by luck.

    Args:
        features: those that may be steered.
        reference: the activation that factor 1 stands for, by feature index; NaN for a feature that never fires, which is
            then not steered.
        prompts: token ids, BOS included where the model expects it.
        mode: see `fade_lens.generation.checks.Mode`.
        new_tokens: tokens of each continuation.
        temperature: 0 takes the likeliest token.
        seed: of the run.
        likelihoods: how many prompts' continuations are also read again, to know how likely they are to the unsteered model.
        store: where continuations are kept; None: in this object.
        workers: who writes.
    """

    def __init__(
        self,
        model: Model,
        features: Features,
        reference: Callable[[int], float],
        prompts: Sequence[tuple[int, ...]],
        *,
        mode: Mode = "add",
        new_tokens: int = 30,
        temperature: float = 0.7,
        seed: int = 0,
        likelihoods: int = FLUENCY_PROMPTS,
        store: ContinuationStore | None = None,
        workers: Workers = HERE,
    ) -> None:
        self.model, self.features, self.prompts, self.store = model, features, prompts, store or MemoryContinuations()
        self._reference, self._workers = reference, workers
        drawn: dict[str, Any] = {"new_tokens": new_tokens, "temperature": temperature}
        self._how = prompts, mode, seed, min(likelihoods, len(prompts)), drawn

    @cached_property
    def _writing(self) -> Writing:
        reference = np.nan_to_num([self._reference(index) for index in self.features.indices])
        return Writing(reference, *self._how)

    @cached_property
    def beginnings(self) -> list[str]:
        """The prompts as text, without BOS."""
        tokenizer: Any = self.model.tokenizer
        return [continued(tokenizer, (), after_bos(prompt, tokenizer.bos_token_id)) for prompt in self.prompts]

    def write(self, sets: Iterable[Steered], progress: Progress | None = None) -> None:
        """Write and keep the sets that are not there yet; `progress` is called with the number of continuations that are done.

        Raises:
            InputError: a set of a feature that is not among `features`; what `generate` cannot use.
        """
        missing = [steered for steered in dict.fromkeys(sets) if self.store.continuations(*steered) is None]
        if unknown := [s.feature for s in missing if s != UNSTEERED and s.feature not in self.features.indices]:
            raise InputError(
                f"feature {unknown[0]} is to be steered, but only {tuple(self.features.indices)} are there"
            )
        by_control = [[s for s in missing if s.control == c] for c in dict.fromkeys(s.control for s in missing)]
        most = BATCHES * largest_rows(self._workers.device or device_of(self.model).type)
        at_once = max(1, most // max(1, len(self.prompts)))
        groups = [some[start : start + at_once] for some in by_control for start in range(0, len(some), at_once)]
        if not groups:
            return
        held = self.model, self.features, self._writing
        for steered, texts, nll in self._workers.each(continued_sets, held, ((group,) for group in groups)):
            self.store.keep_continuations(steered.feature, steered.factor, texts, nll, steered.control)
            if progress is not None:
                progress(len(texts))

    def texts(self, steered: Steered) -> Texts:
        """One set's continuations. Raises `InputError` if `write` has not written it."""
        if (kept := self.store.continuations(*steered)) is None:
            what = "the unsteered model" if steered == UNSTEERED else f"feature {steered.feature}"
            raise InputError(f"{what} has no continuations at factor {steered.factor:g}; have them written first")
        return kept

    def likelihoods(self, steered: Steered) -> tuple[float, ...]:
        """Negative log-likelihoods, nats a token, of the first continuations of a set that has been written."""
        kept = self.store.continuations_nll(*steered)
        assert kept is not None, "texts are kept with their likelihoods"
        return kept

    def fluency(self, index: int, factors: Iterable[float]) -> tuple[Fluency, ...]:
        """How likely a feature's continuations at each factor are to the unsteered model; `write` has written them, and the unsteered."""
        base, usual = self._fluency(UNSTEERED)
        found: list[Fluency] = []
        for factor in factors:
            nll, repeated = self._fluency(Steered(index, factor))
            found.append(Fluency(factor, nll, nll - base, repeated, breaks(nll - base, repeated - usual)))
        return tuple(found)

    def _fluency(self, steered: Steered) -> tuple[float, float]:
        """Mean negative log-likelihood a token and share of repeated tokens of one set of continuations."""
        # Texts that mean nothing have no likelihood, nor those that the unsteered model overflows on.
        known = [one for one in self.likelihoods(steered) if math.isfinite(one)]
        return float(np.mean(known)) if known else math.nan, repeated_share(self.model, self.texts(steered))

    def overflow(self, sets: Iterable[Steered]) -> Reason | None:
        """Why these sets tell nothing, if the model overflowed in any: the texts lost are those of the strongest steering, not any."""
        factors: dict[float, int] = {}
        for steered in sets:
            if lost := self.texts(steered).count(""):
                factors[steered.factor] = factors.get(steered.factor, 0) + lost
        if not factors:
            return None
        at = ", ".join(f"{factor:g}" for factor in sorted(factors))
        return Reason(
            "overflow",
            f"{sum(factors.values())} continuations (at factor {at}) mean nothing, for the model's activations overflowed "
            f"{str(dtype_of(self.model)).removeprefix('torch.')}: use smaller factors, or a model in bfloat16 or float32",
        )


def continued_sets(
    model: Model, features: Features, writing: Writing, group: Sequence[Steered]
) -> Iterator[tuple[Steered, list[str], list[float]]]:
    """The continuations of some sets of one control, features and factors in one batch: of each set its texts, and how likely some of them are."""
    column = {index: position for position, index in enumerate(features.indices)}
    requests = [
        Request(
            prompt=prompt,
            feature=None if steered == UNSTEERED else column[steered.feature],
            factor=steered.factor,
            stream=stream(writing.seed, "continuation", steered.feature, number),
        )
        for steered in group
        for number, prompt in enumerate(writing.prompts)
    ]
    n, read, control = len(writing.prompts), writing.likelihoods, group[0].control
    mode: Mode = "ablate" if control == "ablate" else writing.mode
    writing.batch_size = writing.batch_size or batch_for(model, features, requests, mode, writing.drawn["new_tokens"])
    texts, nll = written(
        model,
        features,
        requests,
        writing.reference,
        decoder=writing.decoder(model, features, requests),
        read=np.arange(len(requests)) % n < read,
        mode=mode,
        batch_size=writing.batch_size,
        directions=control_directions(control, features, writing.seed),
        **writing.drawn,
    )
    for start, steered in zip(range(0, len(requests), n), group, strict=True):
        yield steered, [text or "" for text in texts[start : start + n]], nll[start : start + read]


def written(
    model: Model,
    features: Features,
    requests: Sequence[Request],
    reference: Float[np.ndarray, " feature"],
    *,
    decoder: Decoder | None = None,
    read: Bool[np.ndarray, " request"] | None = None,
    **options: Any,
) -> tuple[list[str | None], list[float]]:
    """What the model writes for each request, and how likely that is to the unsteered model.

    Args:
        reference: the activation that factor 1 stands for, for each of `features`.
        decoder: one that has been made for such requests already; None to make one.
        read: the requests whose continuations are read again, to know their likelihood; None for all.
        options: of `fade_lens.generation.steering.generate`.

    Returns:
        Texts without their prompts, None where the model's activations overflowed; negative log-likelihoods, nats a token,
        NaN where not read or overflowed.
    """
    decoder = decoder or decoder_for(model, features, requests)
    units = torch.tensor(reference, dtype=torch.float32)
    tokens = generate(model, features, requests, units, decoder=decoder, **options)
    whole = tokens[:, 0] >= 0
    rows, nll = np.flatnonzero(whole if read is None else whole & read), np.full(len(requests), np.nan)
    nll[rows] = negative_log_likelihood(model, [requests[i].prompt for i in rows.tolist()], tokens[rows], decoder)
    pairs = zip(requests, tokens.tolist(), whole, strict=True)
    return [continued(model.tokenizer, r.prompt, row) if kept else None for r, row, kept in pairs], nll.tolist()


def natural_beginnings(
    model: Model, tokens: TokenizedTexts, n: int, length: int | None, new_tokens: int, seed: int
) -> list[tuple[int, ...]]:
    """Prompts from a corpus: the first tokens of texts drawn at random.

    Texts shorter than `length` are drawn only where fewer than `n` others are there.

    Args:
        tokens: the corpus.
        length: tokens of each prompt, BOS included; None: whole texts, as far as the context has room.
        new_tokens: tokens that will follow, for which the model's context must leave room.

    Raises:
        InputError: the prompts and new tokens exceed the model's context.
    """
    context, least = int(model.cfg.n_ctx), length or 1
    if least > context - new_tokens:
        raise InputError(
            Argument("prompt_tokens"),
            " + ",
            Argument("new_tokens"),
            f" is {least + new_tokens}, but the model reads at most {context} tokens; lower one of them",
        )
    long_enough = np.flatnonzero(tokens.lengths >= least)
    usable = long_enough if len(long_enough) >= n else np.flatnonzero(tokens.lengths > 0)
    chosen = rng(seed, "prompts").choice(usable, min(n, len(usable)), replace=False)
    return [tuple(tokens[i][: length or context - new_tokens].tolist()) for i in chosen.tolist()]
