"""Trying rules on windows kept for that: which hold where, asked once, and how well a list of rules tells where a feature fires."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from fade_lens._util.seeds import stream
from fade_lens._util.words import evenly
from fade_lens.data.rules import STRONGEST, Rule, same_rule
from fade_lens.evidence.negatives import in_turn, negatives_of
from fade_lens.evidence.roles import Role
from fade_lens.evidence.windows import ACTIVE, WRITTEN, Draw, Evidence, Window
from fade_lens.explainers.base import FeatureEvidence, concept_of
from fade_lens.judge.asking import Questions, all_of
from fade_lens.judge.holding import holding
from fade_lens.metrics.ranking import auroc

Key = tuple[str, ...]
"""Of a rule; see `same_rule`."""
SILENT_KINDS = ("random_silent", "token_silent")
WORST = 2
"""Windows of each kind that a revision is shown: those on which the rules fail worst."""


def held_windows(
    evidence: Evidence, indices: Sequence[int], role: Role, n: int, purpose: str
) -> Mapping[int, tuple[Window, ...]]:
    """Up to `n` windows of a role for each feature, half of them with the feature firing, the others of `SILENT_KINDS` in turn."""
    silent = negatives_of(evidence, SILENT_KINDS).draw(
        role, n // 2, SILENT_KINDS, indices=list(indices), purpose=purpose
    )
    draw = Draw(n - n // 2, purpose=purpose)
    return evidence.read({i: [*evidence.drawn(i, role, draw), *in_turn(silent[i], n // 2)] for i in indices})


def with_silent(windows: Sequence[Window], others: Sequence[Window]) -> tuple[Window, ...]:
    """Windows with others in the place of up to half of those in which the feature is silent."""
    silent = [w for w in windows if w.place.kind != ACTIVE]
    put = evenly(others, len(silent) // 2)
    return (*(w for w in windows if w.place.kind == ACTIVE), *silent[: len(silent) - len(put)], *put)


@dataclass
class Node:
    """A list of rules.

    Attributes:
        rules: texts with strengths.
        name: its place in the tree, such as "1.0.1".
        root: the first list that it comes from; None: it is one.
        scores: how well it tells where the feature fires, by role, as far as it was tried.
        shown: what its prompt held, where there was one.
        dropped: rules that were more than asked for.
    """

    rules: tuple[Rule, ...]
    name: str
    root: "Node | None" = None
    scores: dict[str, float] = field(default_factory=dict[str, float])
    shown: FeatureEvidence | None = None
    dropped: int = 0

    @property
    def key(self) -> frozenset[tuple[Key, int]]:
        """What lists share that say the same."""
        return frozenset((same_rule(text), strength) for text, strength in self.rules)


def best(nodes: Sequence[Node], role: str, n: int) -> list[Node]:
    """The nodes of the largest scores, at equal scores the earlier ones: a revision that gains nothing is none."""
    return sorted(nodes, key=lambda node: -node.scores[role])[:n]


class Answers:
    """Which rules hold for which windows of a feature, asked for once."""

    def __init__(self, questions: Questions, evidence: FeatureEvidence, seed: int) -> None:
        self._questions, self._evidence, self._seed = questions, evidence, seed
        self._holds: dict[tuple[Key, str], list[float | None]] = {}

    def fires(self, role: str) -> Bool[np.ndarray, " window"]:
        """In which of the windows of a role the feature fires."""
        return np.array([w.place.kind == ACTIVE for w in self._evidence.held[role]], dtype=bool)

    def both_kinds(self, role: str) -> bool:
        """Whether there are windows in which the feature fires, and in which it is silent."""
        return len(set(self.fires(role).tolist())) == 2

    async def learn(self, rules: Sequence[str], role: str) -> None:
        """Ask about some rules on the windows of a role, all of them together."""
        concept, texts = concept_of(self._evidence.index), [w.text for w in self._evidence.held[role]]
        seed = stream(self._seed, "tree", role)
        found = await holding(self._questions, concept, rules, texts, seed=seed)
        self._holds |= {(same_rule(rule), role): row for rule, row in zip(rules, found, strict=True)}

    async def score(self, nodes: Sequence[Node], role: str) -> None:
        """Try some lists of rules on the windows of a role; the rules of a list that are not known yet are asked about together.

        The score is the AUROC of `composed`; a pair of windows of which one has no answer counts one half, so that no list gains by what is
        not known of it.
        """
        new: list[list[str]] = []
        waiting = {rule for rule, of in self._holds if of == role}
        for node in nodes:
            if missing := [text for text, _ in node.rules if same_rule(text) not in waiting]:
                waiting.update(map(same_rule, missing))
                new.append(missing)
        await all_of(self.learn(rules, role) for rules in new)
        fires = self.fires(role)
        for node in nodes:
            values = self.composed(node, role)
            told = ~np.isnan(values)
            sides = [values[fires & told], values[~fires & told]]
            share = len(sides[0]) * len(sides[1]) / int(fires.sum() * (~fires).sum())
            node.scores[role] = 0.5 + share * (float(auroc(*sides)) - 0.5) if share else 0.5

    def composed(self, node: Node, role: str) -> Float[np.ndarray, " window"]:
        """The largest of strength / 5 × the rule's answer, for each window; NaN where it could be that of a rule without an answer."""
        found = np.array([self._holds[same_rule(text), role] for text, _ in node.rules], dtype=np.float64)
        weights = np.array([strength / STRONGEST for _, strength in node.rules])[:, None]
        most = np.nan_to_num(weights * found).max(axis=0)
        return np.where(most >= np.where(np.isnan(found), weights, 0.0).max(axis=0), most, np.nan)

    def worst(self, node: Node) -> tuple[list[Window], list[Window]]:
        """Windows of *refine* on which a list of rules fails worst, `WORST` in which the feature fires, and in which it is silent as many of natural and of written texts."""
        windows = self._evidence.held["refine"]
        rated = [(value, w) for value, w in zip(self.composed(node, "refine").tolist(), windows, strict=True) if value == value]  # fmt: skip
        missed = sorted(
            (one for one in rated if one[1].place.kind == ACTIVE), key=lambda one: (one[0], -one[1].largest)
        )
        false = sorted((one for one in rated if one[1].place.kind != ACTIVE and one[0] > 0), key=lambda one: -one[0])
        parts = ([w for _, w in false if (w.place.kind == WRITTEN) == written] for written in (True, False))
        return [w for value, w in missed[:WORST] if value < 1], [w for some in parts for w in some[:WORST]]
