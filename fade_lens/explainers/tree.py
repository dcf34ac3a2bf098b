"""`tree`: rules that are revised where they fail, on texts kept for that, and chosen on others.

Several first lists of rules are asked for, as `structured` asks for one. Each is tried on windows of the role *refine*: which of its rules hold for
which windows is asked in one request, kept by rule and window, so that a child pays for the rules that it changed. The best go on; each is shown
the windows on which it fails worst, and asked for better rules. What comes out is chosen on windows of the role *select*, which no prompt has
held: a revision only where it does better there than the first list that it comes from. Nothing of the role *test* is seen.

What a revision is shown is what FADE would count against the rules: of natural texts those on which the feature fires and no rule holds, and the
false friends for which a rule holds and it is silent (Responsiveness, Purity); and, with `tree_written`, texts that the judge writes for the first
lists and that leave it silent (Clarity). These join the silent windows, half of them those to choose on. So all lists are tried on the same texts:
Clarity of each list's own texts would be no common measure, and would rise where a rule is dropped.

After the tree search of Ma et al. (2025), whose "validation" windows are those that the explainer was shown; and with AUROC of the composed rules
(see `fade_lens.scorers.deciding.composed`) in place of a simulation of every token.
"""

import asyncio
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens.data.rules import STRONGEST, rules_in_words
from fade_lens.evidence.marking import marks
from fade_lens.evidence.roles import Role
from fade_lens.evidence.windows import Evidence, Window
from fade_lens.explainers import prompting
from fade_lens.explainers.base import ExplainerSettings, Explanation, FeatureEvidence, explainer
from fade_lens.explainers.structured import Structured, StructuredSettings
from fade_lens.explainers.trying import WORST, Answers, Node, best, held_windows, with_silent
from fade_lens.judge import Estimate, Judge, holding
from fade_lens.judge.asking import Questions, all_of
from fade_lens.llm.request import Message, Request
from fade_lens.subject.settings import SubjectSettings

HELD: tuple[Role, ...] = ("refine", "select")
Failed = tuple[Sequence[Window], Sequence[Window]]
"""Windows on which a list of rules fails: in which the feature fires and no rule holds, and in which it is silent and one does."""


@dataclass(frozen=True)
class TreeSettings(StructuredSettings):
    """How far the search goes."""

    tree_roots: int = option(3, "First lists of rules that a tree search begins with.", least=1, most=10)
    tree_depth: int = option(3, "How often the best of them are revised.", least=0, most=10)
    tree_width: int = option(3, "Lists of rules that are revised each time: the best so far.", least=1, most=10)
    tree_branching: int = option(2, "Revisions that each of them is asked for.", least=1, most=10)
    tree_texts: int = option(24, "Windows that lists of rules are tried on, and as many that they are chosen on; half of each with the feature firing.", least=8)  # fmt: skip
    tree_written: int = option(0, "Texts that the judge writes for the first lists of rules, as many for each; those that leave the feature silent take the place of up to half the silent windows.", least=0)  # fmt: skip
    tree_temperature: float = option(1.0, "Temperature of the first lists but one, and of revisions.", least=0, most=2)


@explainer("tree")
class Tree(Structured):
    """Rules revised by what they get wrong. At most 60 calls a feature with the settings as they are and a judge that takes several rules at once."""

    version: ClassVar[str] = "1"
    Settings: ClassVar[type[ExplainerSettings]] = TreeSettings

    def __init__(self, settings: SubjectSettings) -> None:
        super().__init__(settings)
        self.tree = TreeSettings.of(settings)
        self.evidence: Evidence | None = None
        self.model = asyncio.Lock()
        """Held where the model runs: the features of a run are explained together."""

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:
        made, usual = cls(settings), cls(settings).usual()
        tree = made.tree
        rules = Node((("a word " * 10, STRONGEST),) * made.rules, "1", shown=usual)
        revision = made.revision(usual, "1", rules, (usual.active[:WORST], usual.active[: 2 * WORST]))
        revisions, chosen = tree.tree_width * tree.tree_branching * tree.tree_depth, tree.tree_width * tree.tree_depth
        asked = super().estimate(judge, settings, tree.tree_roots) + judge.estimate_ask(revision, revisions)
        tried = holding.estimate(judge, made.rules, tree.tree_texts, made.settings.window_tokens)
        written = judge.estimate(-(-tree.tree_written // tree.tree_roots), 0, n_concepts=tree.tree_roots)
        return (asked + tried * (2 * tree.tree_roots + revisions + chosen) + written) * n_features

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        self.evidence = evidence
        found, n = super().gather(evidence, indices), self.tree.tree_texts
        held = {role: held_windows(evidence, list(found), role, n, "tree") for role in HELD}
        return {i: replace(one, held={role: held[role][i] for role in HELD}) for i, one in found.items()}

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        tree, known = self.tree, Answers(questions, evidence, self.settings.seed)
        told = all(known.both_kinds(role) for role in HELD)  # without, there is nothing to choose by
        said = await all_of(self.asked(evidence, questions, str(n)) for n in range(tree.tree_roots if told else 1))
        roots = list({one.key: one for one in reversed(said) if isinstance(one, Node)}.values())[::-1]
        if not roots:
            return Explanation.of(evidence, reason=next(one for one in said if isinstance(one, Reason)))
        if not told:
            return self.chosen(evidence, roots[0], 1)
        if tree.tree_written:
            evidence = await self.with_written(evidence, questions, roots)
            known = Answers(questions, evidence, self.settings.seed)
        await known.score(roots, "refine")
        await known.score(roots, "select")
        nodes, tried = best(roots, "refine", tree.tree_width), list(roots)
        for _ in range(tree.tree_depth):
            most = nodes[0].scores["refine"]
            if most == 1:
                break
            children = await self.revised(evidence, questions, known, nodes, {node.key for node in tried})
            if not children:
                break
            await known.score(children, "refine")
            tried += children
            nodes = best([*nodes, *children], "refine", tree.tree_width)
            await known.score([node for node in nodes if "select" not in node.scores], "select")
            if nodes[0].scores["refine"] <= most:  # no gain is left
                break
        # At equal scores a root before a revision, and of revisions the one that does better where they were made.
        order = sorted((n for n in tried if "select" in n.scores), key=lambda n: (-n.scores["select"], n.root is not None, -n.scores["refine"]))  # fmt: skip
        return self.chosen(evidence, order[0], len(tried))

    def chosen(self, evidence: FeatureEvidence, node: Node, n: int) -> Explanation:
        """The explanation of a list of rules, of so many."""
        made, root = Explanation.of(node.shown or evidence, rules=node.rules, dropped=node.dropped), node.root or node
        first = {"root_select": root.scores["select"]} if "select" in root.scores else {}
        return replace(made, search={"candidates": float(n), **node.scores, **first})

    async def with_written(self, evidence: FeatureEvidence, questions: Questions, roots: Sequence[Node]) -> FeatureEvidence:  # fmt: skip
        """Evidence with texts that the judge writes for the first lists of rules, where these leave the feature silent."""
        assert self.evidence is not None, "what texts do to a feature is known once evidence is gathered"
        index, n = evidence.index, -(-self.tree.tree_written // len(roots))
        seeds = [stream(self.settings.seed, "tree", index, "written", root.name) for root in roots]
        written = await all_of(
            questions.write(rules_in_words(root.rules), n, seed=seed) for root, seed in zip(roots, seeds, strict=True)
        )
        texts = list(dict.fromkeys(text for one in written for text in one.texts))
        async with self.model:
            read = await asyncio.to_thread(self.evidence.read_written, index, texts)
        silent = [w for w in read if w.silent(self.evidence.floor(index))]
        held = {role: with_silent(evidence.held[role], silent[at :: len(HELD)]) for at, role in enumerate(HELD)}
        return replace(evidence, held=held)

    async def asked(
        self,
        evidence: FeatureEvidence,
        questions: Questions,
        name: str,
        parent: Node | None = None,
        failed: Failed = ((), ()),
    ) -> Node | Reason:
        """A list of rules, or a revision of one; the first of all is asked for as `structured` asks."""

        def request(shown: FeatureEvidence) -> Request:
            return self.request(shown) if name == "0" else self.revision(shown, name, parent, failed)

        beside = [window for windows in failed for window in windows]
        shown, found = await self.answered(evidence, questions, request, beside)
        if isinstance(found, Reason):
            return found
        kept, root = found[: self.rules], parent and (parent.root or parent)
        return Node(kept, name, root, shown=shown, dropped=len(found) - len(kept))

    async def revised(self, evidence: FeatureEvidence, questions: Questions, known: Answers, nodes: Sequence[Node], seen: Container[object]) -> list[Node]:  # fmt: skip
        """Revisions of some lists of rules that are not among those seen."""
        said = await all_of(
            self.asked(node.shown or evidence, questions, f"{node.name}.{n}", node, known.worst(node))
            for node in nodes
            if node.scores["refine"] < 1
            for n in range(self.tree.tree_branching)
        )
        return list({one.key: one for one in said if isinstance(one, Node) and one.key not in seen}.values())

    def revision(self, evidence: FeatureEvidence, name: str, parent: Node | None, failed: Failed) -> Request:
        """The question for another list of rules: with a parent, for a better one, its rules and where they fail behind what it began with."""
        request, turns = self.request(evidence), list[Message]()
        seed = stream(self.settings.seed, "tree", evidence.index, name) % 2**31
        if parent is not None:
            said = json.dumps({"rules": [{"activates_on": text, "strength": n} for text, n in parent.rules]}, ensure_ascii=False)  # fmt: skip
            signs, tag = marks((*evidence.active, *evidence.silent)), prompting.tag_of(evidence.index)
            shown = "\n\n".join(
                f"{words}\n\n{prompting.excerpts(windows, evidence.scale, self.how, signs, tag)}"
                for words, windows in zip((prompting.MISSED, prompting.FALSE), failed, strict=True)
                if windows
            )
            turns = [{"role": "assistant", "content": said}, {"role": "user", "content": prompting.REVISE.format(failed=shown)}]  # fmt: skip
        parameters = {**request.parameters, "temperature": self.tree.tree_temperature, "seed": seed}
        return replace(request, messages=[*request.messages, *turns], parameters=parameters)
