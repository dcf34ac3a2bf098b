"""Which tokens a feature makes likelier when it is steered: what the model says next, with and without, in place of what a direct path would do.

After TokenChange of Gur-Arieh et al. (2025), with these differences: the direction is added at a factor of the feature's own reference activation,
not clamped to 10 inside a reconstruction; promoted and suppressed tokens are lists apart; and what random directions of equal length do as well,
to the same texts, is taken away: any push makes some tokens likelier.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fade_lens._util.progress import Stages
from fade_lens._util.seeds import rng, stream
from fade_lens._util.workers import HERE, Workers
from fade_lens.generation.decoders.base import Decoder, left_padded
from fade_lens.generation.steering import Decoding, Request, Steering, check_requests
from fade_lens.subject.features import Features
from fade_lens.subject.hooks import Model, textless_tokens
from fade_lens.subject.subject import Subject
from fade_lens.subject.summary import Promoted
from fade_lens.subject.tokens import decode

TEXTS, TOKENS = 32, 32
"""Natural beginnings after which the next token is looked at, and their length, as Gur-Arieh et al. (2025) have them."""
ROWS = 64
"""Texts that run at a time, with their log-probabilities of the whole vocabulary."""
N_RANDOM = 8
"""Random directions beside the features."""
BESIDE_RANDOM = 2.0
"""A token counts as promoted where its change is more than so many standard deviations of random directions' beyond their mean."""


def token_changes(
    model: Model,
    features: Features,
    prompts: Sequence[tuple[int, ...]],
    reference: Float[np.ndarray, " feature"],
    n: int,
    *,
    factor: float = 1.0,
    n_random: int = N_RANDOM,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    workers: Workers = HERE,
) -> list[Promoted]:
    """The tokens whose log-probability after the prompts rises and falls most, on average over the prompts, while a feature is steered.

    Args:
        features: those that are steered, each by itself, additively and at every position.
        prompts: token ids of natural beginnings, BOS included where the model expects it; the same for all features, so that the unsteered model
            runs once.
        reference: the activation that factor 1 stands for, for each feature; one that is no number gives no tokens.
        n: how many tokens of each kind; special ones are left out, and those that random directions promote (or suppress) as much.
        factor: in units of the reference activation.
        n_random: random directions, as long as the features' median one and steered by their median reference activation.
        seed: of these.
        progress: called with the number of texts that have run.
        workers: who runs the model.

    Returns:
        For each feature tokens with the change of their log-probability in nats, the largest rise first and the largest fall first.

    Raises:
        InputError: a prompt that is empty or longer than the context.
    """
    known = [column for column in range(len(features)) if np.isfinite(reference[column]) and reference[column] != 0]
    if not known or not prompts or not n:
        return [Promoted((), ())] * len(features)
    pushed = Pushed(tuple(prompts), torch.from_numpy(np.nan_to_num(reference)).float(), factor)
    check_requests(model, features, [*pushed.requests(None), *pushed.requests(known[0])], pushed.units, "add", 1)
    with torch.no_grad():
        own = features.directions()
        typical = float(pushed.units[known].abs().median())
        generator = torch.Generator().manual_seed(stream(seed, "token change"))
        noise = torch.randn((n_random, own.shape[1]), generator=generator).to(own)
        noise *= own.norm(dim=-1)[known].median() / noise.norm(dim=-1, keepdim=True)
        tasks = [(None,), *((known[0], row, typical) for row in noise.cpu()), *((column,) for column in known)]

        def said() -> Iterator[Float[Tensor, " token"]]:
            for mean in workers.each(next_tokens, (model, features, pushed), tasks):
                if progress is not None:
                    progress(len(prompts))
                yield mean

        every = said()
        plain = next(every)
        by_chance = torch.stack([next(every) - plain for _ in noise]) if n_random else None
        found = {column: ends(model, mean - plain, by_chance, n) for column, mean in zip(known, every, strict=True)}
        return [found.get(column, Promoted((), ())) for column in range(len(features))]


@dataclass
class Pushed(Decoding):
    """The beginnings, the activations that factor 1 stands for, and the factor."""

    prompts: tuple[tuple[int, ...], ...]
    units: Float[Tensor, " feature"]
    factor: float

    def requests(self, column: int | None) -> list[Request]:
        """Each beginning with one feature steered, or none."""
        return [Request(prompt, column, self.factor, 0) for prompt in self.prompts]


def next_tokens(
    model: Model,
    features: Features,
    pushed: Pushed,
    column: int | None,
    row: Float[Tensor, " d_out"] | None = None,
    unit: float | None = None,
) -> Iterator[Float[Tensor, " token"]]:
    """The mean log-probability of every next token after all beginnings, with a feature steered or none; along `row` and by `unit` where these are given."""
    units = pushed.units if unit is None else torch.full_like(pushed.units, unit)
    requests = pushed.requests(column)
    decoder = pushed.decoder(model, features, pushed.requests(0))
    total = torch.zeros(decoder.head.d_vocab)
    with torch.no_grad():
        directions = None if row is None else row.to(own := features.directions()).expand_as(own)
        for at in range(0, len(requests), ROWS):
            some = slice(at, at + ROWS)
            steering = Steering(model, features, requests[some], units, "add", directions)
            total += log_probabilities(decoder, steering, pushed.prompts[some]).sum(dim=0).cpu()
    yield total / len(requests)


def changes_on(
    subject: Subject, indices: Sequence[int], texts: Int[np.ndarray, " text"], n: int, stages: Stages | None = None
) -> list[Promoted]:
    """The same for some features of a subject, each at its reference activation, after beginnings of texts drawn from those given.

    A feature that never fires has no such activation, and no tokens.
    """
    chosen = rng(subject.settings.seed, "token change").permutation(texts)[:TEXTS]
    prompts = [tuple(subject.tokens[text][:TOKENS].tolist()) for text in sorted(chosen.tolist())]
    reference = np.array([subject.reference(index) for index in indices])
    features, usable = subject.features.select(indices), [prompt for prompt in prompts if prompt]
    runs = int(np.isfinite(reference).sum()) + 1 + N_RANDOM
    progress = None if stages is None else stages.stage("model: steered beginnings", len(usable) * runs)
    about: dict[str, Any] = {"seed": subject.settings.seed, "progress": progress, "workers": subject.workers}
    return token_changes(subject.model, features, usable, reference, n, **about)


def log_probabilities(
    decoder: Decoder, steering: Steering, prompts: Sequence[tuple[int, ...]]
) -> Float[Tensor, "row token"]:
    """Of every next token after each prompt."""
    tokens, real = left_padded(prompts, steering.device)
    with torch.no_grad(), decoder.steered(steering):
        steering.real = real
        state = decoder.start(tokens, real, 1)
        steering.real = None
    return decoder.head.log_probabilities(state)


def ends(
    model: Model, change: Float[Tensor, " token"], by_chance: Float[Tensor, "random token"] | None, n: int
) -> Promoted:
    """The tokens of the largest rise and fall that random directions do not give as well."""
    never, tokenizer = textless_tokens(model, len(change)), model.tokenizer

    def most(sign: int) -> tuple[tuple[str, float], ...]:
        moved = (sign * change).index_fill(0, never, -torch.inf)
        if by_chance is not None and len(by_chance) > 1:
            usual = sign * by_chance
            moved[moved <= usual.mean(dim=0) + BESIDE_RANDOM * usual.std(dim=0)] = -torch.inf
        values, ids = moved.topk(min(n, len(moved)))
        found = [(i, sign * value) for i, value in zip(ids.tolist(), values.tolist(), strict=True) if value > 0]
        return tuple((str(i) if tokenizer is None else decode(tokenizer, [i]), value) for i, value in found)

    return Promoted(most(1), most(-1))
