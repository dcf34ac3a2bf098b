"""Does this SAE belong to these descriptions? Stored contexts are run through model and SAE again and compared."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from fade_lens._util.errors import InputError
from fade_lens.neuronpedia.records import Activation
from fade_lens.subject.features import Features, Source, features_of
from fade_lens.subject.hooks import Model, layer_of, read_hooks
from fade_lens.subject.tokens import HALF, after_bos, decode, pieces

logger = logging.getLogger(__name__)

CORRELATION, ARGMAX, SCALE = 0.9, 0.75, 0.1
"""What passes: a correlation of at least 0.9, three of four peaks in place, a scale within a tenth of 1."""
LONGEST = 512
"""Tokens of a stored context that are run."""
NOT_WHOLE = re.compile(f"{HALF}|^<0x[0-9A-F]{{2}}>$")
"""A stored token that is a part of a character, and does not tell which."""

Values = Float[np.ndarray, "_pos"]
"""A feature's activation at each token of one context."""


@dataclass(frozen=True)
class Agreement:
    """How recomputed activations compare with stored ones.

    Attributes:
        correlation: Pearson's, over all positions of all contexts.
        argmax: share of contexts whose peak is at the same position.
        scale: recomputed over stored, by least squares; NaN if all is silent.
    """

    correlation: float
    argmax: float
    scale: float

    @property
    def same_shape(self) -> bool:
        """Whether they agree up to a factor."""
        return self.correlation >= CORRELATION and self.argmax >= ARGMAX

    @property
    def passed(self) -> bool:
        """Whether they agree."""
        return self.same_shape and abs(self.scale - 1) <= SCALE

    def __str__(self) -> str:
        return f"correlation {self.correlation:.3f}, {self.argmax:.0%} of the peaks in place, scale {self.scale:.3f}"


@dataclass(frozen=True)
class MappingCheck:
    """The outcome of a mapping check.

    Attributes:
        agreement: how far recomputed and stored activations agree; None where no context could be compared.
        n: how many contexts it rests on.
        problem: what is probably wrong; "" where it passed, or could not be checked.
        left_out: contexts that could not be compared, or only up to a token whose text was not stored whole.
    """

    agreement: Agreement | None
    n: int
    problem: str = ""
    left_out: int = 0

    @property
    def passed(self) -> bool:
        """Whether the activations were compared and agree."""
        return self.agreement is not None and not self.problem

    def __str__(self) -> str:
        if self.agreement is None:
            return f"could not be checked: the texts of the tokens of {self.left_out} stored contexts are not whole"
        partly = f" ({self.left_out} stored ones only in part or not at all)" if self.left_out else ""
        return f"{'passed' if self.passed else 'failed'} on {self.n} contexts{partly}: {self.agreement}"


@dataclass(frozen=True)
class _Context:
    """A stored context as the model's tokens, its BOS off, and the stored values of the rest."""

    ids: tuple[int, ...]
    values: tuple[float, ...]
    column: int


def check_mapping(model: Model, sae: Source, activations: Sequence[Activation], *, strict: bool = True) -> MappingCheck:
    """Run stored contexts through model and SAE and compare position by position.

    Args:
        sae: the SAE, or the hook name of neurons.
        activations: some stored contexts, such as `load(id, activations=16).activations`; ten are plenty.
        strict: raise if it fails; else the outcome says so.

    Stored tokens whose text is not whole (parts of a character, stored as U+FFFD) cannot be compared, which is no sign of another
    model: a context is compared up to the first of them.

    Raises:
        InputError: no activations, or all zero; or the check fails: it says what fits instead (with or without BOS, another layer,
            a constant factor), else that it is another SAE.
    """
    one = features_of(model, sae, [0])
    outside = next((a.index for a in activations if a.index >= one.n_features), None)
    if outside is not None:
        raise InputError(
            f"Neuronpedia has activations of feature {outside}, the SAE has {one.n_features}: it is another SAE"
        )
    indices = sorted({a.index for a in activations})
    if not indices:
        raise InputError("there are no stored activations to compare with; give some, or skip the mapping check")
    features = one.select(indices)
    contexts, left_out = read_contexts(model, activations, indices)
    if not contexts:
        return MappingCheck(None, 0, left_out=left_out)
    agreement = compare(model, features, contexts, features.read_hook, features.prepend_bos)
    problem = "" if agreement.passed else diagnosis(model, features, contexts, agreement)
    check = MappingCheck(agreement, len(contexts), problem, left_out)
    if strict and not check.passed:
        raise InputError(
            f"the descriptions do not belong to this SAE as it is ({agreement}, {check.n} contexts): {check.problem}"
        )
    return check


def diagnosis(model: Model, features: Features, contexts: Sequence[_Context], found: Agreement) -> str:
    """What is probably wrong, after the alternatives were tried."""
    other = not features.prepend_bos
    bos_missing = (
        "the stored values were computed " + ("without" if features.prepend_bos else "with") + " BOS in front: "
    )
    turned = compare(model, features, contexts, features.read_hook, other)
    # A missing BOS takes 30 to 45 % off the peaks while most stay in place.
    if turned.passed or (not found.same_shape and turned.same_shape):
        return f"{bos_missing}set sae.cfg.metadata.prepend_bos = {other}"
    if found.same_shape:
        return (
            f"the activations have the same shape at {found.scale:.3g} times the size: another variant of this SAE, or another "
            "normalization of its input"
        )
    fitting = [
        (hook, agreement)
        for hook in other_layers(model, features)
        if (agreement := compare(model, features, contexts, hook, features.prepend_bos)).same_shape
    ]
    if fitting:
        hook, agreement = max(fitting, key=lambda pair: pair[1].correlation)
        return f"they fit {hook} instead of {features.read_hook} ({agreement}): the SAE's layer or hook is another"
    return (
        "neither BOS nor another layer explains it: it is another SAE (release, width, L0) than the source's, "
        "or another model (a finetuned one, other weights)"
    )


def other_layers(model: Model, features: Features) -> Iterator[str]:
    """The same hook of the other layers, and the other residual hooks of its own, as wide as it is; near ones first."""
    own = layer_of(features.read_hook)
    if own is None:
        return
    near = sorted(range(int(model.cfg.n_layers)), key=lambda layer: abs(layer - own))
    names = [features.read_hook.replace(f"blocks.{own}.", f"blocks.{layer}.", 1) for layer in near if layer != own]
    if ".hook_resid_" in features.read_hook:
        names += [f"blocks.{own}.hook_resid_{place}" for place in ("pre", "mid", "post")]
    yield from (name for name in names if name != features.read_hook and name in model.hook_dict)


def compare(model: Model, features: Features, contexts: Sequence[_Context], hook: str, bos: bool) -> Agreement:
    """Agreement if the SAE reads at `hook`, with or without BOS."""
    stored: list[Float[np.ndarray, " _pos"]] = []
    ours: list[Float[np.ndarray, " _pos"]] = []
    lead = [model.tokenizer.bos_token_id] if bos and model.tokenizer.bos_token_id is not None else []
    for context in contexts:
        tokens = torch.tensor([[*lead, *context.ids]], dtype=torch.long)
        with torch.no_grad():
            hidden = read_hooks(model, tokens, [hook])[hook]
            found = features.encode(hidden)[0, len(lead) :, context.column]
        ours.append(found.float().cpu().numpy().astype(np.float64))
        stored.append(np.array(context.values, dtype=np.float64))
    return agreement_of(stored, ours)


def agreement_of(stored: Sequence[Values], ours: Sequence[Values]) -> Agreement:
    """Correlation, peaks and scale of recomputed against stored values."""
    x, y = np.concatenate(list(stored)), np.concatenate(list(ours))
    spread = float(x.std() * y.std())
    correlation = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread > 0 else 0.0
    peaks = [bool(b.max() > 0 and b[int(a.argmax())] >= 0.98 * b.max()) for a, b in zip(stored, ours, strict=True)]
    power = float((x * x).sum())
    return Agreement(correlation, float(np.mean(peaks)), float((x * y).sum()) / power if power > 0 else float("nan"))


def read_contexts(
    model: Model, activations: Sequence[Activation], indices: Sequence[int]
) -> tuple[list[_Context], int]:
    """Stored contexts as the model's tokens, and how many could not be compared, or not to their end.

    What stands behind a token decides nothing before it, so a context is good up to the first token that cannot be read.

    Raises:
        InputError: most of them have tokens that the model does not know, or all are silent.
    """
    lively = [a for a in activations if any(a.values)]
    if not lively:
        raise InputError("the stored activations are all zero; give contexts on which the features fire")
    contexts: list[_Context] = []
    bos, strange, n_strange, left_out = model.tokenizer.bos_token_id, "", 0, 0
    for activation in lively:
        ids, unknown = token_ids(model, activation.tokens[:LONGEST])
        if unknown and not NOT_WHOLE.search(unknown):
            strange, n_strange = unknown, n_strange + 1
            continue
        left_out += bool(unknown)
        kept = tuple(after_bos(ids, bos))
        values = activation.values[len(ids) - len(kept) : len(ids)]
        if any(values):
            contexts.append(_Context(kept, tuple(values), indices.index(activation.index)))
    if not contexts and not left_out and not strange:
        raise InputError("the stored activations are all zero but at BOS; give contexts on which the features fire")
    if 2 * n_strange > len(lively) - left_out:
        raise InputError(f"the model's tokenizer does not know the stored token {strange!r:.40}: it is another model")
    return contexts, left_out


def token_ids(model: Model, tokens: Sequence[str]) -> tuple[list[int], str]:
    """Token ids of stored token strings up to the first that cannot be read, and that one ("" where all can).

    They are stored as text (" the"), with marks for line breaks ("↵"), or as the vocabulary has them ("Ġthe", "▁the", "<0x0A>"). As
    text they are read by tokenizing it again where that gives the very tokens stored, else one by one.
    """
    tokenizer: Any = model.tokenizer
    broken = next((at for at, token in enumerate(tokens) if HALF in token), len(tokens))
    stored = [token.replace("↵", "\n") for token in tokens[:broken]]
    unread = tokens[broken] if broken < len(tokens) else ""
    for between in ("", " "):  # some tokenizers' tokens lose their blanks when they are decoded one by one
        again = tokenizer(between.join(stored), add_special_tokens=False)["input_ids"]
        if len(again) == len(stored) and stored in (
            [decode(tokenizer, [i]) for i in again],
            [*pieces(tokenizer, again)],
        ):
            return list(again), unread
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    blanks = any(set(" ▁Ġ") & set(token) for token in stored)
    ids: list[int] = []
    for token, text in zip(tokens, stored, strict=False):
        other = None if blanks else vocabulary.get(f"▁{text}")
        if other is not None and decode(tokenizer, [other]) == text:  # whose blanks were stripped: it may be either
            return ids, HALF
        found = next((vocabulary[form] for form in forms(token) if form in vocabulary), None)
        if found is None:
            encoded = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(encoded) != 1 or encoded[0] == tokenizer.unk_token_id:
                return ids, token or HALF  # a token of nothing does not tell what it was
            found = int(encoded[0])
        ids.append(found)
    return ids, unread


def forms(token: str) -> Iterator[str]:
    """How a vocabulary may write a token."""
    yield token
    if token.startswith(" "):
        yield "Ġ" + token[1:]
        yield "▁" + token[1:]
    yield token.replace(" ", "▁")
    yield token.replace(" ", "Ġ").replace("\n", "Ċ").replace("↵", "Ċ")
    if len(token) == 1 and (byte := ord("\n" if token == "↵" else token)) < 128:
        yield f"<0x{byte:02X}>"
