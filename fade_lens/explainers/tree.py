"""`tree`: rules that are revised where they fail, on texts kept for that, and chosen on others.

Several first lists of rules are asked for, as `structured` asks for one. Each is tried on windows of the role *refine*: which of its rules hold for
which windows is asked in one request, kept by rule and window, so that a child pays for the rules that it changed. The best go on; each is shown
the windows on which it fails worst, and asked for better rules. What comes out is chosen on windows of the role *select*, which no prompt has
held: a revision only where it does better there than the first list that it comes from. Nothing of the role *test* is seen.

After the tree search of Ma et al. (2025), whose "validation" windows are those that the explainer was shown; and with AUROC of the composed rules
(see `fade_lens.scorers.deciding.composed`) in place of a simulation of every token.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens.data.rules import Rule
from fade_lens.evidence.marking import marks
from fade_lens.evidence.roles import Role
from fade_lens.evidence.windows import Evidence
from fade_lens.explainers import prompting
from fade_lens.explainers.base import ExplainerSettings, Explanation, FeatureEvidence, explainer
from fade_lens.explainers.structured import Structured, StructuredSettings
from fade_lens.explainers.trying import Answers, Node, best, held_windows
from fade_lens.judge import Estimate, Judge, holding
from fade_lens.judge.asking import Questions, all_of
from fade_lens.llm.request import Message
from fade_lens.subject.settings import SubjectSettings

HELD: tuple[Role, ...] = ("refine", "select")


@dataclass(frozen=True)
class TreeSettings(StructuredSettings):
    """How far the search goes."""

    tree_roots: int = option(3, "First lists of rules that a tree search begins with.", least=1, most=10)
    tree_depth: int = option(3, "How often the best of them are revised.", least=0, most=10)
    tree_width: int = option(3, "Lists of rules that are revised each time: the best so far.", least=1, most=10)
    tree_branching: int = option(2, "Revisions that each of them is asked for.", least=1, most=10)
    tree_texts: int = option(24, "Windows that lists of rules are tried on, and as many that they are chosen on; half of each with the feature firing.", least=8)  # fmt: skip
    tree_temperature: float = option(1.0, "Temperature of the first lists but one, and of revisions.", least=0, most=2)


@explainer("tree")
class Tree(Structured):
    """Rules revised by what they get wrong. At most 60 calls a feature with the settings as they are and a judge that takes several rules at once."""

    version: ClassVar[str] = "1"
    Settings: ClassVar[type[ExplainerSettings]] = TreeSettings

    def __init__(self, settings: SubjectSettings) -> None:
        super().__init__(settings)
        self.tree = TreeSettings.of(settings)

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:
        made = cls(settings)
        tree, one = made.tree, super().estimate(judge, settings, 1)
        revisions = tree.tree_width * tree.tree_branching * tree.tree_depth
        nodes, chosen = tree.tree_roots + revisions, tree.tree_roots + tree.tree_width * tree.tree_depth
        tried = holding.estimate(judge, made.rules, tree.tree_texts, made.settings.window_tokens) * (nodes + chosen)
        return (one * nodes + tried) * n_features

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        found, n = super().gather(evidence, indices), self.tree.tree_texts
        held = {role: held_windows(evidence, list(found), role, n, "tree") for role in HELD}
        return {i: replace(one, held={role: held[role][i] for role in HELD}) for i, one in found.items()}

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        tree, known = self.tree, Answers(questions, evidence, self.settings.seed)
        said = await all_of(self.asked(evidence, questions, str(root), self.messages(evidence)) for root in range(tree.tree_roots))  # fmt: skip
        roots = [one for one in said if isinstance(one, Node)]
        if not roots:
            return Explanation.of(evidence, reason=next(one for one in said if isinstance(one, Reason)))
        roots = [*{node.rules: node for node in reversed(roots)}.values()][::-1]
        if not all(known.both_kinds(role) for role in HELD):  # nothing to try them on
            return self.chosen(evidence, roots[0], roots[0], 1)
        await known.score(roots, "refine")
        await known.score(roots, "select")
        nodes, tried = best(roots, "refine", tree.tree_width), list(roots)
        for _ in range(tree.tree_depth):
            most = nodes[0].scores["refine"]
            if most == 1:
                break
            children = await self.revised(evidence, questions, known, nodes, {node.rules for node in tried})
            if not children:
                break
            await known.score(children, "refine")
            tried += children
            nodes = best([*nodes, *children], "refine", tree.tree_width)
            await known.score([node for node in nodes if "select" not in node.scores], "select")
            if nodes[0].scores["refine"] <= most:  # no gain is left
                break
        chosen = best([node for node in tried if "select" in node.scores], "select", 1)[0]
        root = chosen.root or chosen
        better = chosen.scores["select"] > root.scores["select"]
        return self.chosen(evidence, chosen if better else root, root, len(tried))

    def chosen(self, evidence: FeatureEvidence, node: Node, root: Node, n: int) -> Explanation:
        """The explanation of a list of rules."""
        made = Explanation.of(evidence, rules=node.rules)
        scores = {name: node.scores[name] for name in HELD if name in node.scores}
        first = {"root_select": root.scores["select"]} if "select" in root.scores else {}
        return replace(made, search={"candidates": float(n), **scores, **first})

    async def asked(self, evidence: FeatureEvidence, questions: Questions, name: str, messages: Sequence[Message], root: Node | None = None) -> Node | Reason:  # fmt: skip
        """A list of rules; the first of all is asked for as `structured` asks."""
        request = replace(self.request(evidence), messages=list(messages))
        if name != "0":
            seed = stream(self.settings.seed, "tree", evidence.index, name) % 2**31
            request = replace(request, parameters={**request.parameters, "temperature": self.tree.tree_temperature, "seed": seed})  # fmt: skip
        found = await questions.ask(request, lambda answer: self.read(evidence, answer))
        return found if isinstance(found, Reason) else Node(found[: self.rules], name, root)

    async def revised(self, evidence: FeatureEvidence, questions: Questions, known: "Answers", nodes: Sequence[Node], seen: set[tuple[Rule, ...]]) -> list[Node]:  # fmt: skip
        """Revisions of some lists of rules that are not among those seen."""
        work = [
            self.asked(evidence, questions, f"{node.name}.{n}", self.revision(evidence, known, node), node.root or node)
            for node in nodes
            if node.scores["refine"] < 1
            for n in range(self.tree.tree_branching)
        ]
        new = {one.rules: one for one in await all_of(work) if isinstance(one, Node) and one.rules not in seen}
        return list(new.values())

    def revision(self, evidence: FeatureEvidence, known: "Answers", node: Node) -> list[Message]:
        """The chat that asks for better rules: what it began with, the rules, and where they fail."""
        said = json.dumps({"rules": [{"activates_on": text, "strength": n} for text, n in node.rules]}, ensure_ascii=False)  # fmt: skip
        signs, tag, parts = marks((*evidence.active, *evidence.silent)), prompting.tag_of(evidence.index), list[str]()
        for words, windows in zip((prompting.MISSED, prompting.FALSE), known.worst(node), strict=True):
            parts += [words, prompting.excerpts(windows, evidence.scale, self.how, signs, tag)] if windows else []
        return [
            *self.messages(evidence),
            {"role": "assistant", "content": said},
            {"role": "user", "content": prompting.REVISE.format(failed="\n\n".join(parts))},
        ]
