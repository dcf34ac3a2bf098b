"""Which features are meant: numbers, or words such as "0:20,512" and "random:50"."""

import re
from collections.abc import Iterable, Sequence

from fade_lens._util.errors import InputError
from fade_lens._util.seeds import rng
from fade_lens.data.descriptions import parse_indices
from fade_lens.data.rows import whole_number

RANDOM = "random:"
WORDS = re.compile(r"\s*(random:.*|[\d:,\s]+)")
"""Words that name features, and no file."""


def chosen_indices(indices: Iterable[int] | int | str, n_features: int, seed: int) -> Sequence[int]:
    """Indices as numbers; "random:50" draws so many of all, dead ones too, in ascending order.

    Raises:
        InputError: words that name no features, or more than there are.
    """
    if isinstance(indices, int):
        return [indices]
    if not isinstance(indices, str):
        if not isinstance(indices, Iterable):
            raise InputError(
                f"features is {indices!r:.80}; give indices, such as [9, 11], or words, such as '0:20' and 'random:50'"
            )
        return tuple(indices)
    asked = asked_indices(indices)
    if not isinstance(asked, int):
        return asked
    if asked > n_features:
        raise InputError(
            f"features {indices!r}: there are only {n_features} features; give {RANDOM}{n_features} or fewer"
        )
    return sorted(rng(seed, "features to look at").choice(n_features, asked, replace=False).tolist())


def asked_indices(words: str) -> tuple[int, ...] | int:
    """The indices that words name, or how many are to be drawn.

    Raises:
        InputError: words that name no features.

    >>> asked_indices("3,7:9"), asked_indices("random:50")
    ((3, 7, 8), 50)
    """
    if not words.strip().startswith(RANDOM):
        return parse_indices(words)
    number = words.strip().removeprefix(RANDOM)
    if not number.isascii() or not number.isdecimal() or not int(number):
        raise InputError(f"features {words!r}: give {RANDOM}N, such as {RANDOM}50")
    return int(number)


def checked_indices(indices: Iterable[int], n_features: int) -> tuple[int, ...]:
    """The indices as a tuple of int, each in `[0, n_features)` and there once."""
    chosen = tuple(i if isinstance(i, int) and not isinstance(i, bool) else whole_number(i) for i in indices)
    outside = [i for i in chosen if not 0 <= i < n_features]
    if outside:
        raise InputError(
            f"feature index {outside[0]} is out of range: there are {n_features} features, 0 to {n_features - 1}"
        )
    if len(set(chosen)) < len(chosen):
        twice = next(i for i in chosen if chosen.count(i) > 1)
        raise InputError(f"feature index {twice} was given twice; give each index once")
    if not chosen:
        raise InputError("no feature index was given; give at least one")
    return chosen
