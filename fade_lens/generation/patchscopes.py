"""The model describes its own direction: a question about a placeholder whose residual stream is replaced by the direction, at many strengths.

After Patchscopes (Ghandeharioun et al. 2024), SelfIE (Chen et al. 2024) and "Self-explaining SAE features" (Kharlapenko et al. 2024). A feature's
direction says nothing of its scale, and answers depend on it: all scales run in one batch, in units of the residual stream's norm where the
direction is put. Three signals stand with every answer: self-similarity, entropy, relevancy. The same question about random directions of the same
norms tells what they are worth, so that no answer may be the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.options import plain, within
from fade_lens._util.seeds import stream
from fade_lens._util.wording import one_line
from fade_lens.generation.decoders.base import Decoder
from fade_lens.generation.decoders.choosing import decoder_of
from fade_lens.generation.decoders.heads import Head
from fade_lens.generation.next_token import Sampler
from fade_lens.generation.steering import Request, continue_batch, uniforms
from fade_lens.subject.hooks import (
    HookTensor,
    Model,
    device_of,
    read_hooks,
    resolve_hook,
    special_tokens,
    textless_tokens,
)
from fade_lens.subject.tokens import continued, tokenizer_of

PLACE = "{x}"
"""Where the placeholder stands in a question."""
QUESTION = f'Repeat the word between the quotation marks: "{PLACE}"'
ANSWER = 'The word between the quotation marks is "'
"""Asked for a meaning, a small model defines ("a domesticated animal …"), and says as definite things of random directions; asked to name a concept, it
names a wider one ("currency" for money)."""
CLOSING = {'"': '"“”', "“": '"“”', "„": '"“”', "«": "»", "‘": "’", "「": "」", "『": "』", "(": ")", "[": "]", "`": "`"}
"""What ends an answer, by the mark behind which it begins; behind any other character it ends with its line."""
SCALES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
SIGNALS = ("self_similarity", "entropy", "relevancy")
LARGEST = 1e6
"""A scale beyond it is a slip."""
LATE = 8 / 9
"""Where self-similarity is read: this share of the way through the blocks."""
N_RANDOM = 8
"""Random directions that are asked about as well."""
LEAST_RANDOM = 4
"""With fewer, nothing could be told from them."""
BESIDE_RANDOM = 3.0
"""An answer is kept where its score is more than so many standard deviations of random directions' largest scores beyond their mean."""
ROWS = 28
"""Directions that run at a time, each at one scale."""
SYSTEM = "You are a helpful assistant."
"""Where a chat template demands a system turn."""
TINY = 1e-6
"""A spread of random directions' signals below which it is rounding."""


@dataclass(frozen=True)
class Question:
    """What the model is asked.

    Attributes:
        tokens: of the whole chat, up to the beginning of its answer.
        places: positions of the placeholder.
        layer: in front of which block the placeholder's residual stream is replaced.
        unit: mean norm of the residual stream there, over the positions of the question that are no special tokens.
        ends: characters each of which ends an answer.
    """

    tokens: tuple[int, ...]
    places: tuple[int, ...]
    layer: int
    unit: float
    ends: str = CLOSING['"']


@dataclass(frozen=True)
class Answer(Brief):
    """What the model says of a direction at one strength.

    Attributes:
        scale: the norm of what was put in, in units of the residual stream's.
        text: up to the mark that ends it, such as a quotation mark.
        self_similarity: cosine of the direction and the residual stream of the last token before the answer, in a late block.
        entropy: of the answer's first token, nats: low where the direction says something definite.
        relevancy: mean change of the answer's tokens' probabilities by what was put in, 0 to 1.
        score: how far the three lie from those of random directions at the same scale (see `scored`).
        kept: whether the answer says something and its score is beyond those of random directions.
    """

    scale: float
    text: str
    self_similarity: float
    entropy: float
    relevancy: float
    score: float = 0.0
    kept: bool = False

    @property
    def signals(self) -> tuple[float, float, float]:
        """The three of `SIGNALS`, each large where the direction says something."""
        return self.self_similarity, -self.entropy, self.relevancy


ByScale = tuple[Answer, ...]
"""A direction's answers."""


def best(answers: Sequence[Answer]) -> Answer | None:
    """The kept answer of the largest score; None where none is kept: the model says nothing of this direction."""
    return max((answer for answer in answers if answer.kept), key=lambda answer: answer.score, default=None)


def written(tokenizer: Any, ask: str, answer: str) -> str:
    """A question and the beginning of its answer as the tokenizer's chat template writes them. Raises `InputError`."""
    turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
    tried: list[Exception] = []
    for lead in ([], [{"role": "system", "content": SYSTEM}]):  # some templates demand a system turn
        try:
            return str(tokenizer.apply_chat_template([*lead, *turns], tokenize=False, continue_final_message=True))
        except Exception as error:  # a template is a program of anybody's: it may raise anything
            tried.append(error)
    raise InputError(
        f"the tokenizer's chat template cannot write a question and the beginning of its answer: {tried[0]}"
    )


def check_instructed(tokenizer: Any, answer: str | None = None) -> None:
    """Raise `InputError` for a base model's tokenizer, unless the beginning of an answer is given; None is a tokenizer that is not known yet."""
    if tokenizer is not None and not getattr(tokenizer, "chat_template", None) and answer is None:
        raise InputError(
            "the model's tokenizer has no chat template: a base model seldom answers questions about itself; load the instruction-tuned one, or give ",
            Argument("ask"),
            " and ",
            Argument("answer"),
            " in words that it would continue",
        )


def check_answers(
    model: Model, about: Question, scales: Sequence[float], new_tokens: int, n_random: int = N_RANDOM
) -> tuple[float, ...]:
    """The scales as numbers. Raises `InputError` for scales or numbers that cannot be used, or a context that has no room for an answer."""
    numbers: tuple[float, ...] = plain("scales", scales, tuple[float, ...])
    if not numbers:
        raise InputError(Argument("scales"), " are none; give numbers above 0")
    within("scales", numbers, above=0, most=LARGEST)
    within("new_tokens", plain("new_tokens", new_tokens, int), least=1)
    within("n_random", plain("n_random", n_random, int), least=LEAST_RANDOM)
    if len(about.tokens) + new_tokens > int(model.cfg.n_ctx):
        raise InputError(
            Argument("new_tokens"),
            f" is {new_tokens}, which the question of {len(about.tokens)} tokens leaves no room for",
        )
    return numbers


def unusable(directions: Float[Tensor, "feature d_model"]) -> list[int]:
    """Which rows are zero or hold what is no number."""
    norms = directions.float().norm(dim=-1)
    return (~(norms.isfinite() & (norms > 0))).nonzero().flatten().tolist()


def question(model: Model, ask: str | None = None, answer: str | None = None, layer: int | None = None) -> Question:
    """The tokens of a question about a placeholder, and where it stands.

    Args:
        model: instruction-tuned, unless `answer` is given: then the text `ask` and `answer` stand as they are, without a chat around them, if
            the tokenizer has no template for one.
        ask: the user's turn, with the placeholder as "{x}".
        answer: how the model's turn begins; what follows it is the answer, up to the mark that closes a quotation or bracket which it opens
            at its end, else up to the end of the line.
        layer: in front of which block the placeholder is replaced; None for the third.

    Raises:
        InputError: a tokenizer without a chat template, a template that cannot write this, no "{x}", a layer that is not there.
    """
    tokenizer, n_layers = tokenizer_of(model), int(model.cfg.n_layers)
    check_instructed(tokenizer, answer)
    said = (QUESTION if ask is None else ask, ANSWER if answer is None else answer)
    if not any(PLACE in text for text in said):
        raise InputError(Argument("ask"), f" has no {PLACE}, where the direction is put in")
    before: int = min(2, n_layers - 1) if layer is None else plain("layer", layer, int)
    if not 0 <= before < n_layers:
        raise InputError(Argument("layer"), f" is {before}; the model has blocks 0 to {n_layers - 1}")
    chat = bool(getattr(tokenizer, "chat_template", None))
    text = written(tokenizer, *said) if chat else "\n".join(said)
    parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split(PLACE)]
    # Any token may hold the place, for it is replaced; one that says little also says little in the blocks before.
    holders = [tokenizer.unk_token_id, *tokenizer("?", add_special_tokens=False)["input_ids"][-1:], 0]
    holder = next(token for token in holders if token is not None)
    first = [] if chat or tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    tokens, places = [*first, *parts[0]], list[int]()
    for part in parts[1:]:
        places.append(len(tokens))
        tokens += [holder, *part]
    if len(tokens) >= (context := int(model.cfg.n_ctx)):
        raise InputError(
            Argument("ask"), f" makes a question of {len(tokens)} tokens; the model's context holds {context}"
        )
    special = special_tokens(tokenizer)
    usual = [at for at, token in enumerate(tokens) if token not in special and at not in places]
    if not usual:
        raise InputError(Argument("ask"), f" has no word beside {PLACE}")
    hook = resolve_hook(model, f"blocks.{before}.hook_resid_pre")
    with torch.no_grad():
        norms = read_hooks(model, torch.tensor([tokens]), [hook])[hook][0, usual].float().norm(dim=-1)
    ends = CLOSING.get(said[1].rstrip()[-1:], "\n")
    return Question(tuple(tokens), tuple(places), before, float(norms.mean()), ends)


class Patch:
    """The hooks that put a direction in for the placeholder, a row each, while the question passes.

    Attributes:
        last: the residual stream of the question's last token in a late block, once it has passed.
    """

    def __init__(self, model: Model, about: Question, rows: Float[Tensor, "row d_model"] | None) -> None:
        self.device, self._rows, self._about = device_of(model), rows, about
        self.real: Bool[Tensor, "row pos"] | None = None
        self.last: Tensor | None = None
        self.tensors, self.kind = list[Tensor](), about  # `Recordable`: they do nothing at a step
        late = min(int(LATE * int(model.cfg.n_layers)), int(model.cfg.n_layers) - 1)
        self._put_at = resolve_hook(model, f"blocks.{about.layer}.hook_resid_pre")
        self._read_at = resolve_hook(model, f"blocks.{max(late, about.layer)}.hook_resid_post")

    def hooks(self) -> list[tuple[str, Any]]:
        """By resolved name, in the order in which they fire."""
        return [(self._put_at, self._put), (self._read_at, self._read)]

    def _put(self, residual: HookTensor, hook: Any) -> HookTensor:  # noqa: ARG002
        if self._rows is None or residual.shape[1] < len(self._about.tokens):
            return residual
        changed = residual.clone()
        changed[:, list(self._about.places)] = self._rows[:, None].to(residual)
        return changed

    def _read(self, residual: HookTensor, hook: Any) -> None:  # noqa: ARG002
        if residual.shape[1] >= len(self._about.tokens):
            self.last = residual[:, len(self._about.tokens) - 1].float()


def answers(
    model: Model,
    about: Question,
    directions: Float[Tensor, "feature d_model"],
    scales: Sequence[float] = SCALES,
    *,
    new_tokens: int = 8,
    n_random: int = N_RANDOM,
    seed: int = 0,
) -> tuple[list[ByScale], list[ByScale]]:
    """What the model says of some directions, at all scales in one batch, the likeliest tokens.

    Args:
        about: the question.
        directions: in the residual stream; their length means nothing.
        scales: norms of what is put in, in units of the residual stream's at the placeholder's layer.
        new_tokens: of an answer at most.
        n_random: random directions that are asked about as well.
        seed: of these.

    Returns:
        The answers of each direction, and of each random direction, by scale.

    Raises:
        InputError: scales or numbers that cannot be used, a question that leaves no room for an answer in the context, a direction that is
            zero or no number.
    """
    scales = check_answers(model, about, scales, new_tokens, n_random)
    rows = directions.float()
    if len(bad := unusable(rows)):
        raise InputError(Argument("directions"), f"[{bad[0]}] is zero or holds what is no number; leave it out")
    generator = torch.Generator().manual_seed(stream(seed, "patchscopes"))
    noise = torch.randn((n_random, rows.shape[1]), generator=generator).to(rows)
    put = (
        rearrange(F.normalize(torch.cat([rows, noise]), dim=-1), "row d -> row 1 d")
        * torch.tensor(scales).to(rows)[:, None]
    )
    put = about.unit * rearrange(put, "row scale d -> (row scale) d")
    with torch.no_grad():
        names = [name for name, _ in Patch(model, about, None).hooks()]
        decoder = decoder_of(model, names, [about.tokens])
        never = textless_tokens(model, decoder.head.d_vocab)
        said = [one for some in put.split(ROWS) for one in batch(model, decoder, about, some, never, new_tokens)]
    told = [replace(one, scale=scales[at % len(scales)]) for at, one in enumerate(said)]
    found = [tuple(told[at : at + len(scales)]) for at in range(0, len(told), len(scales))]
    return scored(found[: len(rows)], found[len(rows) :])


def scored(own: Sequence[ByScale], random: Sequence[ByScale]) -> tuple[list[ByScale], list[ByScale]]:
    """Answers with their scores, and which of them are kept.

    An answer's score is the mean of its three signals' distances from the mean of random directions' at the same scale, in their standard
    deviations (root mean square over scales); a random direction is scored beside the others. Kept is what says something, what no random direction says at this scale, and
    scores more than `BESIDE_RANDOM` standard deviations beyond the mean of the largest scores that random directions reach at any scale.
    """

    def signals(some: Sequence[ByScale]) -> Float[np.ndarray, "direction scale signal"]:
        return np.array([[answer.signals for answer in answers] for answers in some])

    def beyond(some: Float[np.ndarray, "direction scale signal"], usual: Float[np.ndarray, "random scale signal"]) -> Float[np.ndarray, "direction scale"]:  # fmt: skip
        spread = np.sqrt(
            usual[:, finite].var(axis=0, ddof=1).mean(axis=0)
        )  # of few directions, each scale alone tells little
        return ((some - usual.mean(axis=0)) / np.maximum(spread, TINY)).mean(axis=-1)

    usual = signals(random)
    finite = np.isfinite(usual).all(axis=(0, 2))
    if not finite.any():
        raise InputError(Argument("scales"), " make the model's activations overflow, all of them; give smaller ones")
    alone = np.concatenate([beyond(usual[[at]], np.delete(usual, at, axis=0)) for at in range(len(usual))])
    largest = alone[:, finite].max(axis=1)
    least = largest.mean() + BESIDE_RANDOM * largest.std(ddof=1)
    by_chance = [{answers[at].text.casefold() for answers in random} for at in range(usual.shape[1])]

    def with_scores(some: Sequence[ByScale], scores: Float[np.ndarray, "direction scale"]) -> list[ByScale]:
        return [
            tuple(
                replace(a, score=float(s), kept=bool(a.text and s > least) and a.text.casefold() not in said)
                for a, s, said in zip(answers, row, by_chance, strict=True)
            )
            for answers, row in zip(some, scores, strict=True)
        ]

    return with_scores(own, beyond(signals(own), usual)), with_scores(random, alone)


class Recorder(Sampler):
    """A sampler that keeps the states of which it chooses."""

    def choose(self, state: Float[Tensor, "row d_state"], step: int) -> Int[Tensor, " row"]:
        self.states = [*(self.states if step else ()), state]
        return super().choose(state, step)


def batch(
    model: Model,
    decoder: Decoder,
    about: Question,
    rows: Float[Tensor, "row d_model"],
    never: Int[Tensor, " token"],
    new_tokens: int,
) -> list[Answer]:
    """What the model says with each row put in; the scale is not known here."""
    patch, requests = Patch(model, about, rows), [Request(about.tokens, None, 0.0, 0)] * len(rows)
    sampler = Recorder(decoder.head, uniforms(requests, new_tokens), never, 0.0, None)
    ids = torch.from_numpy(continue_batch(decoder, patch, requests, sampler, new_tokens)).to(patch.device)
    assert patch.last is not None, "the question has passed"
    similar = F.cosine_similarity(patch.last, rows.to(patch.last), dim=-1)
    first = decoder.head.log_probabilities(sampler.states[0])
    entropy = torch.where(ids[:, 0] >= 0, -(first.exp() * first).sum(dim=-1), torch.nan)
    ends = [
        until_end(model.tokenizer, about, own) if own[0] >= 0 else ("", 1) for own in ids.tolist()
    ]  # else it overflowed
    texts, lengths = zip(*ends, strict=True)
    # What follows an answer does not count, and without the direction equal answers are equally likely: each is read once.
    own = torch.arange(max(lengths), device=ids.device) < torch.tensor(lengths, device=ids.device)[:, None]
    ids = ids[:, : max(lengths)].where(own, 0).clamp(min=0)
    told = probabilities(decoder.head, sampler.states[: max(lengths)], ids)
    different, which = ids.unique(dim=0, return_inverse=True)
    asked = torch.tensor([about.tokens], device=patch.device).expand(len(different), -1)
    with decoder.steered(Patch(model, about, None)):
        states = decoder.states(torch.cat([asked, different], dim=1))[:, len(about.tokens) - 1 : -1]
    change = (told - probabilities(decoder.head, states.unbind(dim=1), different)[which]).abs()
    relevant = change.where(own, 0).sum(dim=-1) / own.sum(dim=-1)
    rows_of = zip(texts, similar.tolist(), entropy.tolist(), relevant.tolist(), strict=True)
    return [Answer(0.0, *row) for row in rows_of]


def probabilities(
    head: Head, states: Sequence[Float[Tensor, "row d_state"]], ids: Int[Tensor, "row new"]
) -> Float[Tensor, "row new"]:
    """Of the tokens that were chosen, from the states before them."""
    each = (head.log_probabilities(state).gather(-1, ids[:, at : at + 1]) for at, state in enumerate(states))
    return torch.cat(tuple(each), dim=-1).exp()


def until_end(tokenizer: Any, about: Question, ids: Sequence[int]) -> tuple[str, int]:
    """The answer up to what ends it, and how many of the tokens are of it."""
    for n in range(len(ids) + 1):
        text = continued(tokenizer, about.tokens, ids[:n]).lstrip("\n")
        if ends := [text.index(mark) for mark in about.ends if mark in text]:
            return cleaned(text[: min(ends)]), max(1, n - 1)
    return cleaned(continued(tokenizer, about.tokens, ids)), len(ids)


def cleaned(text: str) -> str:
    """An answer on one line, its final stop and quotation marks around it left out."""
    return one_line(text).rstrip(".").strip('"“”')
