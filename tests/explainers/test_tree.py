"""`tree`: rules revised where they fail, chosen on texts that no prompt held; what is asked, and how often."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from sae_lens import SAE

from fade_lens import Fade
from fade_lens.judge.holding import read
from fade_lens.llm.chat import Answer
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, TRUE, WORDS_OF, judge_of, natural_texts, planted_model, planted_sae, rule, writer

TEXTS = natural_texts(1200)
EXCERPT = re.compile(r'<excerpt (\d+)(?: id="\d+")?>\n(.*?)\n</excerpt', re.S)


def two_meanings() -> SAE[Any]:
    """Latent 0 fires on animals and on colours."""
    sae = planted_sae()
    with torch.no_grad():
        sae.W_enc[1, 0] = 1.0
    return sae


def classes_of(text: str) -> set[int]:
    words = set(re.findall(r"\w+", text))
    return {index for index, members in CLASSES.items() if words & set(members)}


class Reviser:
    """Explains by the class that it is told of first, and adds on revision what the failing excerpts show."""

    def __init__(self, *, learns: bool = True) -> None:
        self.learns, self.revisions, self.held = learns, 0, 0

    def __call__(self, body: dict[str, Any]) -> str | None:
        messages = body["messages"]
        system, last = messages[0]["content"], messages[-1]["content"]
        if system.startswith("You are given numbered rules"):
            self.held += 1
            rules = [json.loads(line.split(" ", 1)[1]) for line in last.split("</rules>")[0].splitlines()[1:] if line]
            rows = []
            for number, text in EXCERPT.findall(last):
                words = set(re.findall(r"\w+", text))
                rows.append(
                    {
                        "id": int(number),
                        "rules": [n for n, name in enumerate(rules, 1) if words & WORDS_OF.get(name, set())],
                    }
                )
            return json.dumps({"excerpts": rows})
        if not system.startswith("You find out what one unit"):
            return None
        if last.startswith("The rules were tried"):
            self.revisions += 1
            before = [row["activates_on"] for row in json.loads(messages[-2]["content"])["rules"]]
            missed = last.split("is silent, though")[0]
            more = (
                {TRUE[i] for _, text in EXCERPT.findall(missed) for i in classes_of(text) & {0, 1}}
                if self.learns
                else set()
            )
            return json.dumps(
                {"rules": [{"activates_on": text, "strength": 5} for text in dict.fromkeys([*before, *sorted(more)])]}
            )
        return json.dumps({"rules": [{"activates_on": TRUE[0], "strength": 5}]})


@pytest.fixture
def reviser() -> Reviser:
    return Reviser()


@pytest.fixture
def server(reviser: Reviser) -> Iterator[FakeJudge]:
    with FakeJudge(rule=lambda concept, text: min(rule(concept, text), 1), writer=writer, says=reviser) as running:
        yield running


def make(server: FakeJudge, sae: SAE[Any] | None = None, **settings: Any) -> Fade:
    return Fade(planted_model(), sae or two_meanings(), corpus=TEXTS, judge=judge_of(server), **settings)


def test_a_latent_with_two_meanings_gets_the_second_rule_from_where_the_first_fails(
    server: FakeJudge, reviser: Reviser
) -> None:
    fade = make(server)
    made = fade.explain([0], explainer="tree", progress=False)[0]
    assert made.description is not None and {text for text, _ in made.description.rules} == {TRUE[0], TRUE[1]}
    assert made.search["select"] == 1 > made.search["root_select"] and made.search["candidates"] >= 2
    assert reviser.revisions and server.requests <= fade.estimate([0], explainer="tree", scorers=()).calls <= 60
    structured = fade.explain([0], explainer="structured", progress=False)[0]
    results = fade.evaluate([made.description, structured.description], scorers=("detection",), progress=False)
    scores = {len(r.description.rules): r.metrics["detection"].value or 0.0 for r in results}
    assert scores[2] > scores[1] + 0.1, "on texts that neither was shown, tried or chosen on"


def test_a_child_pays_only_for_the_rules_that_it_changed(server: FakeJudge, reviser: Reviser) -> None:
    make(server, tree_roots=1, tree_width=1, tree_branching=1, tree_depth=1).explain(
        [0], explainer="tree", progress=False
    )
    # The root's rule is tried on refine and on select, and so is the rule that its child adds: never the root's again.
    held = [
        body["messages"][-1]["content"] for body in server.bodies if "numbered rules" in body["messages"][0]["content"]
    ]
    assert len(held) == 4 and sum(TRUE[0] in one.split("</rules>")[0] for one in held) == 2
    assert all(len(EXCERPT.findall(one)) == 24 for one in held)


def test_the_root_is_kept_where_no_revision_is_better(server: FakeJudge, reviser: Reviser) -> None:
    reviser.learns = False
    made = make(server).explain([0], explainer="tree", progress=False)[0]
    assert made.description is not None and made.description.rules == ((TRUE[0], 5),)
    assert made.search["candidates"] == 1 and made.search["select"] == made.search["root_select"] < 1
    assert reviser.revisions == 2, "one level: no revision was new"


def test_rules_that_are_right_are_not_revised(server: FakeJudge, reviser: Reviser) -> None:
    made = make(server, planted_sae()).explain([0], explainer="tree", progress=False)[0]
    assert (
        made.search == {"candidates": 1.0, "refine": 1.0, "select": 1.0, "root_select": 1.0} and not reviser.revisions
    )
    assert server.requests == 3 + 2


def test_no_window_of_one_role_is_of_a_text_of_another(server: FakeJudge) -> None:
    fade = make(server)
    fade.explain([0], explainer="tree", progress=False)
    shown: dict[str, set[str]] = {"show": set(), "held": set()}
    for body in server.bodies:
        system, texts = body["messages"][0]["content"], EXCERPT.findall(body["messages"][1]["content"])
        where = "held" if "numbered rules" in system else "show"
        shown[where] |= {re.sub("<<|>>", "", text).split("\n(strength")[0].strip() for _, text in texts}
    assert len(shown["held"]) > 24 and not {one for one in shown["show"] & shown["held"] if len(one.split()) > 5}


def test_the_search_stands_in_the_table(server: FakeJudge) -> None:
    frame: Any = make(server).explain([0, 3], explainer="tree", progress=False).frame
    assert frame["search_candidates"].iloc[0] >= 2 and frame["search_candidates"].isna().iloc[1]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{}",
        '{"excerpts": 3}',
        '{"excerpts": [{"id": 9, "rules": [1]}]}',
        '{"excerpts": [{"id": 1, "rules": [5]}]}',
        '{"excerpts": [{"id": 1}]}',
    ],
)
def test_answers_about_rules_that_are_not_there_are_none(answer: str) -> None:
    assert read(Answer(answer), 2, 3) is None


def test_answers_about_some_texts_count_for_these() -> None:
    assert read(
        Answer('{"excerpts": [{"id": 2, "rules": [2, 1]}, {"id": 3, "rules": []}, {"id": 1, "rules": [3]}]}'), 2, 3
    ) == [None, {0, 1}, set()]
