"""`Explanations`: what an explainer made of some features, as a table that `Fade.evaluate` takes as it is."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fade_lens._util.errors import InputError
from fade_lens._util.files import table_of, write_csv, write_text
from fade_lens._util.reasons import Reason
from fade_lens.data.collisions import Collisions, collisions, label_of
from fade_lens.data.descriptions import (
    Description,
    Provenance,
    Rule,
    explained_rows,
    explanations_in,
    read_descriptions,
)
from fade_lens.explainers.base import Explanation

if TYPE_CHECKING:
    import pandas as pd


class NothingDescribed(InputError):
    """None of some features has a description; `without` has the reason of each."""

    def __init__(self, explanations: "Explanations") -> None:
        self.without = explanations.without
        super().__init__(f"none of {len(explanations.rows)} features has a description ({explanations.counted}); explain others")  # fmt: skip


@dataclass(frozen=True)
class Explanations:
    """Explanations of features, in the order that these were asked for. Iterating gives the descriptions that there are.

    Attributes:
        rows: one a feature and explainer, those without a description included.
        run: how they were made: explainer, settings, model, features, corpus, judge, versions, usage.
    """

    rows: tuple[Explanation, ...]
    run: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def read(cls, source: Any) -> "Explanations | None":
        """The explanations that a table or CSV file of `to_csv` holds, with all that is known of each; None for anything else.

        Raises:
            InputError: one that was changed so that it cannot be read.
        """
        if isinstance(source, cls):
            return source
        table, where = explanations_in(source)
        if table is None:
            return None

        def row(
            index: int, text: str, about: Provenance, rules: tuple[Rule, ...], reason: Reason | None
        ) -> Explanation:
            made = None if reason is not None else Description(index, text, about, rules)
            return Explanation(index, made, reason, about.shown, provenance=about)

        found = cls(tuple(row(*known) for known in explained_rows(table, where)))
        if len(found):
            read_descriptions(list(found))  # none of them twice
        return found

    @classmethod
    def of(cls, source: Any) -> "Explanations":
        """What `read` reads, or descriptions from whatever else holds them (see `read_descriptions`), so that `collisions` tells of them too.

        Raises:
            InputError: as `read_descriptions`.
        """
        found = cls.read(source)
        return (
            cls(tuple(Explanation(d.index, d, provenance=d.provenance) for d in read_descriptions(source)))
            if found is None
            else found
        )

    def among(self, indices: Iterable[int]) -> "Explanations":
        """Those of some features."""
        some = set(indices)
        return replace(self, rows=tuple(row for row in self.rows if row.index in some))

    def __len__(self) -> int:
        """How many features have a description."""
        return sum(row.description is not None for row in self.rows)

    def __iter__(self) -> Iterator[Description]:
        return (row.description for row in self.rows if row.description is not None)

    def __getitem__(self, index: int) -> Explanation:
        """The explanation of a feature, by its index.

        Raises:
            InputError: the feature was not explained, or by several explainers.
        """
        found = [row for row in self.rows if row.index == index]
        if len(found) != 1:
            raise InputError(f"feature {index} has {len(found)} explanations; look at `rows`")
        return found[0]

    def __add__(self, other: "Explanations") -> "Explanations":
        """Those of two explainers together, to be evaluated on the same texts and compared by explainer."""
        return Explanations((*self.rows, *other.rows), self.run)

    @property
    def by_index(self) -> dict[int, Explanation]:
        """The explanation of each feature.

        Raises:
            InputError: a feature was explained by several explainers.
        """
        found = {row.index: row for row in self.rows}
        if len(found) < len(self.rows):
            index, n = Counter(row.index for row in self.rows).most_common(1)[0]
            raise InputError(f"feature {index} has {n} explanations; give those of one explainer")
        return found

    @property
    def reasons(self) -> dict[str, int]:
        """How many features have no description, by the code of the reason."""
        return dict(Counter(row.reason.code for row in self.rows if row.reason is not None))

    @property
    def counted(self) -> str:
        """`reasons` in words."""
        return ", ".join(f"{n} {code}" for code, n in self.reasons.items())

    @property
    def without(self) -> tuple[Explanation, ...]:
        """The features that have no description."""
        return tuple(row for row in self.rows if row.description is None)

    @property
    def record(self) -> dict[str, Any]:
        """What a run that scores them keeps of them."""
        told = {"explainer": self.run.get("explainer"), "features": len(self.rows), "described": len(self)}
        without = {code: [r.index for r in self.rows if r.reason and r.reason.code == code] for code in self.reasons}
        return {**told, "without": without}

    def collisions(self, near: float | None = None) -> Collisions:
        """Which features share a description, so that it cannot say what any one of them means; `Fade.untangle` describes these anew.

        Args:
            near: cosine of two descriptions' embeddings from which these count as shared, above 0 and at most 1; it needs the extra `similarity`.
                Unless given, only those that are equal but for case, punctuation and blanks, rules in any order.

        Raises:
            InputError: `near` is no such cosine.
            MissingExtraError: it is given, and texts cannot be embedded.
        """
        return collisions(self, near)

    def untangled(self, new: "Explanations", near: float | None = None) -> "Explanations":
        """These with those of `new` that are better off: each shares its description with fewer features, and with none that the one before did not.

        No new description makes a collision that was not there, so the share of features that collide never rises. `run["collisions"]` has that
        share before and after, how many features were `explained` anew and how many of these are `replaced`, and why others got no description.

        Args:
            new: other explanations of some of the features; the provenance of each stays with it.
            near: as in `collisions`.

        Raises:
            InputError: a feature has several explanations.
        """
        old, fresh = self.by_index, new.by_index
        near_by = collisions([*self, *new], near).near  # texts are embedded once
        before = replace(collisions(self), near=near_by)
        said = {index: (old[index].description, row.description) for index, row in fresh.items() if index in old}
        kept = {i: fresh[i] for i, (was, now) in said.items() if was and now and label_of(was) != label_of(now)}
        while True:
            found = replace(self, rows=tuple(kept.get(index, row) for index, row in old.items()))
            after = replace(collisions(found), near=near_by)
            better = {i: row for i, row in kept.items() if set(after.others(i)) < set(before.others(i))}
            if len(better) == len(kept):
                break
            kept = better
        told: dict[str, Any] = {"share_before": before.share, "share_after": after.share, "explained": len(new.rows)}
        told |= {"replaced": len(kept), "without": new.reasons, "usage": new.run.get("usage")}
        return replace(found, run={**self.run, "collisions": told})

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row a feature: its description, or why it has none, who made it, on what, and at what cost, and which others have that description."""
        shared = self.collisions()
        return table_of({**row_of(row), "flags": shared.flag(row.index) or ""} for row in self.rows)

    def to_csv(self, path: str | Path) -> Path:
        """Write `frame`; `read_descriptions` and `fade-lens evaluate --descriptions` read it with all that is known of each."""
        return write_csv(self.frame, path)

    def __repr__(self) -> str:
        left = f", {self.counted}" if self.reasons else ""
        return f"Explanations({len(self)} of {len(self.rows)} features described{left})"

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page: a table, and a card for every feature with what its explainer was shown."""
        from fade_lens.report.explaining import explanations_page

        return write_text(path, explanations_page(self))

    def _repr_html_(self) -> str:
        from fade_lens.report.notebook import explanation_cards

        return explanation_cards(self)


def row_of(row: Explanation) -> dict[str, Any]:
    """One row of `Explanations.frame`."""
    description, about = row.description, row.provenance
    return {
        "index": row.index,
        "description": None if description is None else description.text,
        "rules": json.dumps(description.rules) if description is not None and description.rules else "",
        "reason": None if row.reason is None else str(row.reason),
        "reason_code": None if row.reason is None else row.reason.code,
        "explainer": about.method,
        "model": about.explainer,
        "prompt_version": about.version,
        "evidence": about.evidence,
        "shown": " ".join(f"{text}:{first}-{last}" for text, first, last in row.shown),
        "dropped_rules": row.dropped,
        **{f"search_{name}": value for name, value in row.search.items()},
        "judge_calls": None if row.usage is None else row.usage.calls,
        "judge_cost": None if row.usage is None else row.usage.cost,
    }


def explained_by(descriptions: Any) -> str | None:
    """The explainer of this library that made descriptions or `Explanations`, the first of several; None for what others made."""
    rows = descriptions.rows if isinstance(descriptions, Explanations) else descriptions
    known = (one for one in (rows if isinstance(rows, Iterable) else ()) if isinstance(one, Description | Explanation))
    return next(
        (one.provenance.method for one in known if one.provenance.kind == "explained" and one.provenance.method), None
    )
