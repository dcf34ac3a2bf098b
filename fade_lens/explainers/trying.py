"""Trying rules on windows kept for that: which hold where, asked once, and how well a list of rules tells where a feature fires."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from fade_lens._util.seeds import stream
from fade_lens.data.rules import STRONGEST, Rule
from fade_lens.evidence.negatives import in_turn, negatives_of
from fade_lens.evidence.roles import Role
from fade_lens.evidence.windows import ACTIVE, Draw, Evidence, Window
from fade_lens.explainers.base import FeatureEvidence, concept_of
from fade_lens.judge.asking import Questions, all_of
from fade_lens.judge.holding import holding
from fade_lens.metrics.ranking import auroc

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


@dataclass
class Node:
    """A list of rules.

    Attributes:
        rules: texts with strengths.
        root: the first list that it comes from; None: it is one.
        name: its place in the tree, such as "1.0.1".
        scores: AUROC by role, as far as it was tried.
    """

    rules: tuple[Rule, ...]
    name: str
    root: "Node | None" = None
    scores: dict[str, float] = field(default_factory=dict[str, float])


def best(nodes: Sequence[Node], role: str, n: int) -> list[Node]:
    """The nodes of the largest scores, at equal scores the earlier ones: a revision that gains nothing is none."""
    return sorted(nodes, key=lambda node: -node.scores[role])[:n]


class Answers:
    """Which rules hold for which windows of a feature, asked for once."""

    def __init__(self, questions: Questions, evidence: FeatureEvidence, seed: int) -> None:
        self._questions, self._evidence, self._seed = questions, evidence, seed
        self._holds: dict[tuple[str, str], list[float | None]] = {}

    def both_kinds(self, role: str) -> bool:
        """Whether there are windows in which the feature fires, and in which it is silent."""
        return len({w.place.kind == ACTIVE for w in self._evidence.held[role]}) == 2

    async def learn(self, rules: Sequence[str], role: str) -> None:
        """Ask about some rules on the windows of a role, all of them together."""
        concept, texts = concept_of(self._evidence.index), [w.text for w in self._evidence.held[role]]
        seed = stream(self._seed, "tree", role)
        found = await holding(self._questions, concept, rules, texts, seed=seed)
        self._holds |= {(rule, role): row for rule, row in zip(rules, found, strict=True)}

    async def score(self, nodes: Sequence[Node], role: str) -> None:
        """Try some lists of rules on the windows of a role; the rules of a list that are not known yet are asked about together."""
        new: list[list[str]] = []
        waiting = {rule for rule, of in self._holds if of == role}
        for node in nodes:
            if missing := [rule for rule, _ in node.rules if rule not in waiting]:
                waiting.update(missing)
                new.append(missing)
        await all_of(self.learn(rules, role) for rules in new)
        for node in nodes:
            values = self.composed(node, role)
            fires = np.array([w.place.kind == ACTIVE for w in self._evidence.held[role]])
            sides = [values[fires & ~np.isnan(values)], values[~fires & ~np.isnan(values)]]
            node.scores[role] = auroc(*sides) if all(map(len, sides)) else 0.5

    def composed(self, node: Node, role: str) -> Float[np.ndarray, " window"]:
        """The largest of strength / 5 × the rule's answer, for each window; NaN where a rule has none."""
        rows = [
            [np.nan if p is None else strength / STRONGEST * p for p in self._holds[rule, role]]
            for rule, strength in node.rules
        ]
        return np.max(np.array(rows, dtype=np.float64), axis=0)

    def worst(self, node: Node) -> tuple[list[Window], list[Window]]:
        """Windows of *refine* on which a list of rules fails worst: those in which the feature fires, and those in which it is silent."""
        windows = self._evidence.held["refine"]
        rated = [(value, w) for value, w in zip(self.composed(node, "refine").tolist(), windows, strict=True) if value == value]  # fmt: skip
        missed = sorted(
            (one for one in rated if one[1].place.kind == ACTIVE), key=lambda one: (one[0], -one[1].largest)
        )
        false = sorted((one for one in rated if one[1].place.kind != ACTIVE), key=lambda one: -one[0])
        return [w for value, w in missed[:WORST] if value < 1], [w for value, w in false[:WORST] if value > 0]
