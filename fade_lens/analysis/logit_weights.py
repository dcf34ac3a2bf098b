"""What a latent's direction does to the vocabulary as a whole: the shape of its logits, and the sets of tokens that it promotes.

After Bloom and Lin, "Understanding SAE features with the logit lens" (2024): a few tokens far from the others (a high kurtosis) make a latent that
says something definite, a long tail on one side (skewness) one that promotes or suppresses. Their test of token sets is by permutation of ranks;
here a set's mean logit is set against what random directions make of it. Tokens of a set are alike to the model, so that any direction moves them
together, and a test that takes tokens for independent finds nearly every set.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from sae_lens import SAE
from scipy.stats import kurtosis, norm, skew

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens.baselines.permutation import benjamini_hochberg
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import Model, textless_tokens
from fade_lens.subject.lens import in_residual_stream, lens_logits
from fade_lens.subject.tokens import decode

if TYPE_CHECKING:
    import pandas as pd

LEAST_SET, LEAST_RANDOM = 5, 20
NAMES = frozenset(
    [
        "James",
        "John",
        "Robert",
        "Michael",
        "William",
        "David",
        "Richard",
        "Joseph",
        "Thomas",
        "Charles",
        "Christopher",
        "Daniel",
        "Matthew",
        "Anthony",
        "Mark",
        "Paul",
        "Steven",
        "Andrew",
        "Kenneth",
        "George",
        "Kevin",
        "Brian",
        "Edward",
        "Ronald",
        "Timothy",
        "Jason",
        "Jeffrey",
        "Ryan",
        "Jacob",
        "Eric",
        "Jonathan",
        "Stephen",
        "Larry",
        "Justin",
        "Scott",
        "Brandon",
        "Benjamin",
        "Samuel",
        "Frank",
        "Peter",
        "Henry",
        "Jack",
        "Mary",
        "Patricia",
        "Jennifer",
        "Linda",
        "Elizabeth",
        "Barbara",
        "Susan",
        "Jessica",
        "Sarah",
        "Karen",
        "Lisa",
        "Nancy",
        "Sandra",
        "Ashley",
        "Emily",
        "Kimberly",
        "Donna",
        "Michelle",
        "Carol",
        "Amanda",
        "Melissa",
        "Deborah",
        "Stephanie",
        "Rebecca",
        "Laura",
        "Sharon",
        "Cynthia",
        "Amy",
        "Kathleen",
        "Angela",
        "Anna",
        "Emma",
        "Olivia",
        "Rachel",
        "Maria",
        "Julia",
        "Alice",
        "Jane",
        "Helen",
        "Kate",
        "Lucy",
    ]
)
CALENDAR = frozenset(
    [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ]
)
SETS: Mapping[str, Callable[[str], bool]] = {
    "capitalized": lambda word: bool(re.fullmatch(r"\s?[A-Z][a-z]+", word)),
    "capitals": lambda word: bool(re.fullmatch(r"\s?[A-Z]{2,}", word)),
    "number": lambda word: word.strip().isdecimal(),
    "punctuation": lambda word: bool(re.fullmatch(r"\s?[!-/:-@\[-`{-~]+", word)),
    "white space": lambda word: word != "" and word.isspace(),
    "continues a word": lambda word: bool(re.fullmatch(r"[a-z]+", word)),
    "not Latin": lambda word: any(c.isalpha() and ord(c) > 0x24F for c in word),
    "first name": lambda word: word.strip() in NAMES,
    "month or day": lambda word: word.strip() in CALENDAR,
}
"""Sets of tokens, each by whether a token's text belongs to it; beside them there is one for every first letter."""


@dataclass(frozen=True)
class LogitWeights(Brief):
    """What directions do to the vocabulary.

    Attributes:
        frame: a row a feature: index, variance, skewness, kurtosis (0 for a normal distribution) of its logits over all tokens with a text.
        sets: a row a feature and set of tokens: index, set, size, shift (how far the set's mean logit lies above that of all tokens, in
            standard deviations of all tokens' logits), z (how far that is from what random directions do, in their standard deviations), p_value, q_value (false discovery rate over the whole table, Benjamini and Hochberg).
    """

    frame: "pd.DataFrame"
    sets: "pd.DataFrame"


def logit_weights(
    model: Model,
    source: SAE[Any] | str,
    indices: Sequence[int] | int | str,
    sets: Mapping[str, Sequence[str]] | None = None,
    *,
    n_random: int = 200,
    seed: int = 0,
) -> LogitWeights:
    """The logits that some features' directions make of the whole vocabulary, by the logit lens (see `fade_lens.subject.lens.LENS`).

    Args:
        model: a `HookedSAETransformer`, `HookedTransformer` or TransformerLens bridge.
        source: a `sae_lens` SAE or transcoder, or a hook name for neurons.
        indices: of the features: numbers, or words such as "0:20,512" or "random:50".
        sets: words by the names of sets of your own, such as {"colours": ["red", "blue"]}, whose tokens are these with and without a space in
            front; None for first letters and `SETS`. Sets of fewer than five tokens of this tokenizer are left out.
        n_random: directions at random, drawn from a normal distribution, to which each set's place is compared.
        seed: of these.

    Raises:
        InputError: features whose directions do not reach the residual stream, a model without a tokenizer, too few random directions.
    """
    if n_random < LEAST_RANDOM:
        raise InputError(Argument("n_random"), f" is {n_random}; give at least {LEAST_RANDOM}")
    if model.tokenizer is None:
        raise InputError("the model has no tokenizer, so that its tokens have no text")
    features = features_of(model, source, indices, seed)
    rows = in_residual_stream(model, features)
    if isinstance(rows, Reason):
        raise InputError(str(rows))
    d_vocab = int(model.cfg.d_vocab)
    known = np.setdiff1d(np.arange(d_vocab), textless_tokens(model, d_vocab).numpy())
    members = sets_of([decode(model.tokenizer, [i]) for i in known.tolist()], sets)
    generator = torch.Generator().manual_seed(stream(seed, "logit weights"))
    random = torch.randn((n_random, rows.shape[1]), generator=generator).to(rows)
    null = np.concatenate([shifts(logits.numpy()[:, known], members) for logits in lens_logits(model, random)])
    moments: list[dict[str, Any]] = []
    found: list[Float[np.ndarray, "_some set"]] = []
    for logits in lens_logits(model, rows):
        values = logits.numpy()[:, known].astype(np.float64)
        found.append(shifts(values, members))
        moments += map(moments_of, values)
    shift = np.concatenate(found)
    z = (shift - null.mean(axis=0)) / null.std(axis=0, ddof=1)
    p = 2 * norm.sf(np.abs(z))
    q = benjamini_hochberg(p.ravel()).reshape(p.shape)
    return LogitWeights(
        table_of({"index": index} | row for index, row in zip(features.indices, moments, strict=True)),
        table_of(
            {
                "index": index,
                "set": name,
                "size": int(mask.sum()),
                "shift": shift[at],
                "z": z[at],
                "p_value": p[at],
                "q_value": q[at],
            }
            for row, index in enumerate(features.indices)
            for column, (name, mask) in enumerate(members.items())
            for at in [(row, column)]
        ),
    )


def sets_of(tokens: Sequence[str], given: Mapping[str, Sequence[str]] | None) -> dict[str, Bool[np.ndarray, " token"]]:
    """Which tokens each set holds; sets of too few are left out."""
    rules = SETS if given is None else {name: rule_of(words) for name, words in given.items()}
    found = first_letters(tokens) if given is None else {}
    found |= {name: np.array([belongs(token) for token in tokens]) for name, belongs in rules.items()}
    large = {name: mask for name, mask in found.items() if LEAST_SET <= mask.sum() < len(tokens)}
    if not large:
        words = ", ".join(f"{name!r} {mask.sum()}" for name, mask in found.items())
        raise InputError(Argument("sets"), f" hold fewer than {LEAST_SET} tokens of this tokenizer each ({words})")
    return large


def first_letters(tokens: Sequence[str]) -> dict[str, Bool[np.ndarray, " token"]]:
    """A set for every letter: the tokens whose text begins with it, blanks and case aside. All are found in one pass."""
    first = np.array([token.strip().lower()[:1] for token in tokens])
    return {f"starts with {letter}": first == letter for letter in ascii_lowercase}


def rule_of(words: Sequence[str]) -> Callable[[str], bool]:
    """Whether a token is one of these words, with or without a space in front."""
    if isinstance(words, str):
        raise InputError(Argument("sets"), f": give words in a list, not the text {words[:40]!r}")
    chosen = {word.strip() for word in words}
    return lambda token: token.strip() in chosen


def shifts(
    logits: Float[np.ndarray, "row token"], members: Mapping[str, Bool[np.ndarray, " token"]]
) -> Float[np.ndarray, "row set"]:
    """How far the mean logit of each set lies above that of all tokens, in standard deviations of all, for each row of logits."""
    shares = np.stack([mask / mask.sum() for mask in members.values()], axis=1)
    return (logits @ shares - logits.mean(axis=1, keepdims=True)) / logits.std(axis=1, keepdims=True)


def moments_of(logits: Float[np.ndarray, "token"]) -> dict[str, float]:
    """Variance, skewness and kurtosis of a direction's logits."""
    return {"variance": float(logits.var()), "skewness": float(skew(logits)), "kurtosis": float(kurtosis(logits))}
