"""Activations that a user brings: one largest value a text, checked against the model on a few texts before they are used."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from fade_lens._util.errors import InputError
from fade_lens._util.grid import Grid
from fade_lens.subject.activations import MaxActivations, max_activations

if TYPE_CHECKING:
    from fade_lens.subject.subject import Subject

Given = Callable[[int], Any] | Mapping[int, Any]
"""From a feature's index to its largest activation, by magnitude and signed, on every text of the corpus, in their order."""
CHECKED_FEATURES, CHECKED_TEXTS = 16, 8
"""Features whose strongest text is run, and further texts, evenly spaced, that are run for all features."""
TOLERANCE, SMALL = 0.02, 0.002
"""How far a value may be from the model's: this share of it, or of the feature's largest; caches are often of half precision."""


def given_activations(subject: "Subject", given: Given) -> MaxActivations:
    """The activations of a subject's features as they were given.

    Where they stand in their texts is not known, nor how often the features fire by token: `positions` are -1 and `active` is -1.

    Raises:
        InputError: a feature without values, values that are not one number a text, or that the model does not have.
    """
    tokens, indices = subject.tokens, subject.features.indices
    values = Grid((len(indices), len(tokens)), np.float32)
    for column, index in enumerate(indices):
        values.rows[column] = values_of(given, index, len(tokens))
    values.release()
    counted = np.add.reduceat(np.append(~tokens.special, False).astype(np.int64), tokens.offsets[:-1]) * (
        tokens.lengths > 0
    )
    values.rows[:, counted == 0] = np.nan
    positions = np.broadcast_to(np.int32(-1), (len(tokens), len(indices)))
    found = MaxActivations(values.rows.T, positions, counted, np.full(len(indices), -1, dtype=np.int64), 0)
    check(subject, found)
    return found


def values_of(given: Given, index: int, n_texts: int) -> Float[np.ndarray, " text"]:
    """One feature's values. Raises `InputError` for what are none."""
    try:
        one = given(index) if callable(given) else given[index]
        values = np.asarray(one.detach().cpu() if hasattr(one, "detach") else one, dtype=np.float32)
    except LookupError:
        raise InputError(
            f"activations has no feature {index}; give its largest activation on each of the {n_texts:,} texts"
        ) from None
    except (TypeError, ValueError) as error:
        raise InputError(f"activations of feature {index} are no numbers ({error}); give one a text") from error
    if values.shape != (n_texts,):
        raise InputError(
            f"activations of feature {index} have shape {values.shape}; give one number for each of the {n_texts:,} texts"
        )
    if not np.isfinite(values[~np.isnan(values)]).all():
        raise InputError(f"activations of feature {index} hold an infinite number; give NaN where a text has none")
    return values


def check(subject: "Subject", found: MaxActivations) -> None:
    """Raise `InputError` where the model has other activations on a few texts: those of other texts, layers or hooks."""
    magnitude = np.abs(np.nan_to_num(found.values))
    columns = np.unique(np.linspace(0, magnitude.shape[1] - 1, CHECKED_FEATURES).astype(int))
    evenly = np.linspace(0, len(magnitude) - 1, CHECKED_TEXTS).astype(int)
    texts = np.unique([*magnitude[:, columns].argmax(axis=0), *evenly])
    texts = texts[found.counted[texts] > 0]
    own = max_activations(
        subject.model, subject.features, subject.tokens.select(texts.tolist()), subject.outliers
    ).values
    told, largest = np.nan_to_num(found.values[texts]), np.maximum(magnitude.max(axis=0), 1e-6)
    room = TOLERANCE * np.maximum(np.abs(told), np.abs(np.nan_to_num(own))) + SMALL * largest
    wrong = np.abs(told - np.nan_to_num(own)) > room
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        n, index = int(texts[row]), subject.features.indices[column]
        raise InputError(
            f"activations of feature {index} do not fit the model: on text {n} ({subject.tokens.texts[n]!r:.60}) they have "
            f"{told[row, column]:.4g} and the model {own[row, column]:.4g}; give those of this model, hook and SAE on these texts in their order, "
            "special tokens and massive activations left out"
        )
