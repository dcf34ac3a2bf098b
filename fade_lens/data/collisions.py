"""Collisions: features of one run that share a description, so that it cannot say what any one of them means.

McCann 2026 (arXiv 2605.12874) counts 82 % of an SAE's latents that share a label with another. The share grows with the number of features: fifty
drawn at random rarely collide where all of the SAE's do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens._util.reasons import Flag
from fade_lens._util.wording import one_line, same_words
from fade_lens.data.descriptions import Description
from fade_lens.data.embedding import CHUNK, check_embedding, embed
from fade_lens.data.rules import rules_in_words

if TYPE_CHECKING:
    import pandas as pd

NAMED = 5
"""Features that a flag names; of further ones it tells the number."""


@dataclass(frozen=True)
class Collisions:
    """Which features of a run share a description.

    Attributes:
        features: of each label, as `label_of` has it, the features that have it; their descriptions differ in case, punctuation and blanks at most.
        near: of a label, those whose cosine with it is large enough; empty where none was asked for.
        texts: of each label, the first description that has it, as it was given.
    """

    features: Mapping[str, tuple[int, ...]]
    near: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    texts: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @cached_property
    def labels(self) -> dict[int, list[str]]:
        """The labels of each feature that has a description."""
        found: dict[int, list[str]] = {}
        for label, features in self.features.items():
            for index in features:
                found.setdefault(index, []).append(label)
        return found

    def alike(self, index: int) -> list[str]:
        """The labels of a feature, and those near to them."""
        return [
            label
            for own in self.labels.get(index, ())
            for label in (own, *self.near.get(own, ()))
            if label in self.features
        ]

    @cached_property
    def _sharing(self) -> dict[tuple[str, ...], tuple[int, ...]]:
        """By labels the features that have one of them: made once for all of these, of which there may be ten thousand."""
        return {}

    def sharing(self, index: int) -> tuple[int, ...]:
        """The features that share a description with one, itself among them, in ascending order."""
        labels = tuple(self.alike(index))
        if labels not in self._sharing:
            self._sharing[labels] = tuple(sorted({other for label in labels for other in self.features[label]}))
        return self._sharing[labels]

    def others(self, index: int) -> tuple[int, ...]:
        """The features that share a description with one, in ascending order."""
        return tuple(other for other in self.sharing(index) if other != index)

    @cached_property
    def indices(self) -> tuple[int, ...]:
        """The features that share a description with another, in ascending order."""
        shared = (i for i in self.labels if any(o != i for label in self.alike(i) for o in self.features[label][:2]))
        return tuple(sorted(shared))

    @property
    def share(self) -> float | None:
        """Of the features with a description, the share that shares it with another; None without any."""
        return len(self.indices) / len(self.labels) if self.labels else None

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Features linked by what they share, the largest group first; by near labels two may be linked through a third alone."""
        left, found = set(self.indices), list[tuple[int, ...]]()
        for first in self.indices:
            group, new, seen = set[int](), {first} & left, set[str]()
            while new:
                group |= new
                fresh = {label for index in new for label in self.alike(index)} - seen
                seen |= fresh
                new = {other for label in fresh for other in self.features[label]} - group
            left -= group
            found += [tuple(sorted(group))] if group else []
        return tuple(sorted(found, key=lambda group: (-len(group), group)))

    def flag(self, index: int) -> Flag | None:
        """That a feature shares its description, as a flag: "collides: with 12, 40"; None where it does not."""
        if (left := len(self.sharing(index)) - 1) < 1:
            return None
        named = [str(other) for other in self.sharing(index)[: NAMED + 1] if other != index][:NAMED]
        return Flag("collides", f"with {', '.join(named)}{f' and {left - NAMED:,} more' if left > NAMED else ''}")

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row a group: how many features it has, which, and their descriptions, each once."""
        return table_of(
            {
                "n_features": len(group),
                "features": ", ".join(map(str, group)),
                "descriptions": "; ".join(dict.fromkeys(self.texts[own] for index in group for own in self.labels[index])),
            }
            for group in self.groups
        )  # fmt: skip

    def __repr__(self) -> str:
        share = "" if self.share is None else f" ({self.share:.0%})"
        return f"Collisions({len(self.indices)} of {len(self.labels)} features{share} in {len(self.groups)} groups)"


def check_near(near: float | None) -> None:
    """Raise `InputError` for a cosine that cannot be, and `MissingExtraError` where texts cannot be embedded; None asks for nothing."""
    if near is None:
        return
    if not (isinstance(near, int | float) and 0 < near <= 1):
        raise InputError(Argument("near"), f" is {near!r}; give a cosine above 0 and at most 1, such as 0.9")
    check_embedding("Finding descriptions that are near-equal")


def label_of(description: Description) -> str:
    """What descriptions have in common that say the same: the words without case, punctuation and blanks; rules in any order."""
    text = rules_in_words(sorted(description.rules)) if description.rules else description.text
    return same_words(text) or one_line(text)


def collisions(descriptions: Iterable[Description], near: float | None = None) -> Collisions:
    """Which features share a description (see `Explanations.collisions`).

    Args:
        descriptions: of some features, each of which may have several.
        near: cosine of two descriptions' embeddings from which these count as shared; None: only those that are equal in words.
    """
    check_near(near)
    features: dict[str, dict[int, None]] = {}
    texts: dict[str, str] = {}
    for d in descriptions:
        features.setdefault(label := label_of(d), {})[d.index] = None
        texts.setdefault(label, d.text)
    found = {label: tuple(some) for label, some in features.items()}
    return Collisions(found, {} if near is None else near_labels(list(found), list(texts.values()), near), texts)


def near_labels(labels: list[str], texts: list[str], near: float) -> dict[str, tuple[str, ...]]:
    """Of each label the others whose texts' embeddings have a cosine of at least `near` with its own; labels without any are left out."""
    vectors, found = embed(texts), dict[str, tuple[str, ...]]()
    for start in range(0, len(labels), CHUNK):
        rows, columns = np.nonzero(vectors[start : start + CHUNK] @ vectors.T >= near - 1e-6)  # as float32 has them
        for row in np.unique(rows).tolist():
            if others := tuple(labels[at] for at in columns[rows == row].tolist() if at != start + row):
                found[labels[start + row]] = others
    return found
