"""The model describes its own direction: a question about a placeholder whose residual stream is replaced by the direction, at many strengths.

After Patchscopes (Ghandeharioun et al. 2024), SelfIE (Chen et al. 2024) and "Self-explaining SAE features" (Kharlapenko et al. 2024). A feature's
direction says nothing of its scale, and answers depend on it: all scales run in one batch, in units of the residual stream's norm where the
direction is put, each beside a random direction of the same norm. Three signals stand with every answer: self-similarity, entropy, relevancy.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.seeds import stream
from fade_lens._util.wording import one_line
from fade_lens.generation.decoders.base import Decoder
from fade_lens.generation.decoders.choosing import decoder_of
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
from fade_lens.subject.tokens import continued

QUOTE = re.compile('["“”]')
PLACE = "{x}"
"""Where the placeholder stands in a question."""
QUESTION = f'In one word or a short phrase, what is the meaning of "{PLACE}"?'
ANSWER = f'The meaning of "{PLACE}" is "'
SCALES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
LATE = 8 / 9
"""Where self-similarity is read: this share of the way through the blocks."""


@dataclass(frozen=True)
class Question:
    """What the model is asked.

    Attributes:
        tokens: of the whole chat, up to the beginning of its answer.
        places: positions of the placeholder.
        layer: in front of which block the placeholder's residual stream is replaced.
        unit: mean norm of the residual stream there, over the positions of the question that are no special tokens.
    """

    tokens: tuple[int, ...]
    places: tuple[int, ...]
    layer: int
    unit: float


@dataclass(frozen=True)
class Answer:
    """What the model says of a direction at one strength.

    Attributes:
        scale: the norm of what was put in, in units of the residual stream's.
        text: up to the first quotation mark.
        self_similarity: cosine of the direction and the residual stream of the last token before the answer, in a late block.
        entropy: of the answer's first token, nats: low where the direction says something definite.
        relevancy: mean change of the answer's tokens' probabilities by what was put in, 0 to 1.
    """

    scale: float
    text: str
    self_similarity: float
    entropy: float
    relevancy: float

    def says_more_than(self, random: "Answer") -> bool:
        """Whether it says something, and owes more to the direction than a random direction's answer at the same strength does."""
        return bool(self.text) and self.text != random.text and self.relevancy > random.relevancy


def question(model: Model, ask: str | None = None, answer: str | None = None, layer: int | None = None) -> Question:
    """The tokens of a question about a placeholder, and where it stands.

    Args:
        model: instruction-tuned, unless `answer` is given: then the text `ask` and `answer` stand as they are, without a chat around them, if
            the tokenizer has no template for one.
        ask: the user's turn, with the placeholder as "{x}".
        answer: how the model's turn begins; what follows it, up to the first quotation mark, is the answer.
        layer: in front of which block the placeholder is replaced; None for the third.

    Raises:
        InputError: a tokenizer without a chat template, no "{x}", a layer that is not there.
    """
    tokenizer, n_layers = model.tokenizer, int(model.cfg.n_layers)
    chat = getattr(tokenizer, "chat_template", None)
    if not chat and answer is None:
        raise InputError(
            "the model's tokenizer has no chat template: a base model seldom answers questions about itself; load the instruction-tuned one, or give ",
            Argument("ask"),
            " and ",
            Argument("answer"),
            " in words that it would continue",
        )
    said = (QUESTION if ask is None else ask, ANSWER if answer is None else answer)
    if not any(PLACE in text for text in said):
        raise InputError(Argument("ask"), f" has no {PLACE}, where the direction is put in")
    layer = min(2, n_layers - 1) if layer is None else layer
    if not 0 <= layer < n_layers:
        raise InputError(Argument("layer"), f" is {layer}; the model has blocks 0 to {n_layers - 1}")
    turns = [{"role": "user", "content": said[0]}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) if chat else f"{said[0]}\n"
    parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in f"{text}{said[1]}".split(PLACE)]
    holder = tokenizer.unk_token_id
    if holder is None:
        holder = tokenizer("?", add_special_tokens=False)["input_ids"][-1]
    first = [] if chat or tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    tokens, places = [*first, *parts[0]], list[int]()
    for part in parts[1:]:
        places.append(len(tokens))
        tokens += [holder, *part]
    special = special_tokens(tokenizer)
    usual = [at for at, token in enumerate(tokens) if token not in special and at not in places]
    hook = resolve_hook(model, f"blocks.{layer}.hook_resid_pre")
    with torch.no_grad():
        norms = read_hooks(model, torch.tensor([tokens]), [hook])[hook][0, usual].float().norm(dim=-1)
    return Question(tuple(tokens), tuple(places), layer, float(norms.mean()))


class Patch:
    """The hooks that put a direction in for the placeholder, a row each, while the question passes.

    Attributes:
        last: the residual stream of the question's last token in a late block, once it has passed.
    """

    def __init__(self, model: Model, about: Question, rows: Float[Tensor, "row d_model"] | None) -> None:
        self.device, self._rows, self._about = device_of(model), rows, about
        self.real: Bool[Tensor, "row pos"] | None = None
        self.last: Tensor | None = None
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
    new_tokens: int = 12,
    seed: int = 0,
) -> list[tuple[tuple[Answer, ...], tuple[Answer, ...]]]:
    """What the model says of some directions, at all scales in one batch, the likeliest tokens.

    Args:
        about: the question.
        directions: in the residual stream; their length means nothing.
        scales: norms of what is put in, in units of the residual stream's at the placeholder's layer.
        new_tokens: of an answer at most.
        seed: of the random directions.

    Returns:
        For each direction its answers, and those of a random direction, by scale.

    Raises:
        InputError: no scale, one that is not above 0, a question that leaves no room for an answer in the context.
    """
    if not scales or not all(np.isfinite(scale) and scale > 0 for scale in scales):
        raise InputError(Argument("scales"), f" are {list(scales)}; give numbers above 0")
    if len(about.tokens) + new_tokens > int(model.cfg.n_ctx):
        raise InputError(
            Argument("new_tokens"),
            f" is {new_tokens}, which the question of {len(about.tokens)} tokens leaves no room for",
        )
    found: list[tuple[tuple[Answer, ...], tuple[Answer, ...]]] = []
    with torch.no_grad():
        names = [name for name, _ in Patch(model, about, None).hooks()]
        decoder = decoder_of(model, names, [about.tokens])
        never = textless_tokens(model, decoder.head.d_vocab)
        for number, direction in enumerate(directions.float()):
            generator = torch.Generator().manual_seed(stream(seed, "patchscopes", number))
            noise = torch.randn(direction.shape, generator=generator).to(direction)
            both = torch.stack([direction, noise])
            both = both / both.norm(dim=-1, keepdim=True)
            rows = about.unit * rearrange(both, "side d -> side 1 d") * torch.tensor(scales).to(both)[:, None]
            said = batch(model, decoder, about, rearrange(rows, "side scale d -> (side scale) d"), never, new_tokens)
            told = [Answer(scale, *one) for scale, one in zip([*scales, *scales], said, strict=True)]
            found.append((tuple(told[: len(scales)]), tuple(told[len(scales) :])))
    return found


def batch(
    model: Model,
    decoder: Decoder,
    about: Question,
    rows: Float[Tensor, "row d_model"],
    never: Int[Tensor, " token"],
    new_tokens: int,
) -> list[tuple[str, float, float, float]]:
    """What the model says with each row put in, with self-similarity, entropy and relevancy."""
    patch, requests = Patch(model, about, rows), [Request(about.tokens, None, 0.0, 0)] * len(rows)
    sampler = Sampler(decoder.head, uniforms(requests, new_tokens), never, 0.0, None)
    ids = np.maximum(continue_batch(decoder, patch, requests, sampler, new_tokens), 0)
    assert patch.last is not None, "the question has passed"
    similar = F.cosine_similarity(patch.last, rows.to(patch.last), dim=-1)
    whole = torch.tensor([[*about.tokens, *row] for row in ids.tolist()], device=patch.device)
    told, plain = (log_probabilities(decoder, Patch(model, about, put), about, whole) for put in (rows, None))
    chosen = whole[:, len(about.tokens) :, None]
    entropy = -(told[:, 0].exp() * told[:, 0]).sum(dim=-1)
    change = (told.gather(-1, chosen).exp() - plain.gather(-1, chosen).exp()).abs()[..., 0]
    found: list[tuple[str, float, float, float]] = []
    for row, own in enumerate(ids.tolist()):
        text, n = until_quote(model.tokenizer, about, own)
        found.append((text, float(similar[row]), float(entropy[row]), float(change[row, :n].mean())))
    return found


def log_probabilities(
    decoder: Decoder, patch: Patch, about: Question, whole: Int[Tensor, "row pos"]
) -> Float[Tensor, "row new token"]:
    """Of every token after the question, at each position of the answers."""
    with decoder.steered(patch):
        states = decoder.states(whole)[:, len(about.tokens) - 1 : -1]
    flat = rearrange(states, "row new d -> (row new) d")
    return rearrange(decoder.head.log_probabilities(flat), "(row new) token -> row new token", row=len(whole))


def until_quote(tokenizer: Any, about: Question, ids: Sequence[int]) -> tuple[str, int]:
    """The answer up to its first quotation mark, and how many of the tokens are of it."""
    for n in range(len(ids) + 1):
        text = continued(tokenizer, about.tokens, ids[:n])
        if QUOTE.search(text):
            return cleaned(QUOTE.split(text)[0]), max(1, n - 1)
    return cleaned(continued(tokenizer, about.tokens, ids)), len(ids)


def cleaned(text: str) -> str:
    """An answer on one line, its final stop left out."""
    return one_line(text).rstrip(".")
