"""`tree`: rules revised where they fail, chosen on texts that no prompt held; what is asked, and how often."""

import json
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE

from fade_lens import Fade, Judge, JudgeError, read_descriptions
from fade_lens.evidence.windows import Evidence, Place, Window
from fade_lens.explainers.base import Explanation, FeatureEvidence
from fade_lens.explainers.trying import Answers, Node
from fade_lens.judge.asking import Questions
from fade_lens.judge.holding import read
from fade_lens.llm.chat import Answer
from fade_lens.llm.request import Request
from fade_lens.subject.subject import Subject
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, TRUE, WORDS_OF, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.tiny import OTHERS

TEXTS = natural_texts(1000)
EXCERPT = re.compile(r'<excerpt (\d+)(?: id="\d+")?>\n(.*?)\n</excerpt', re.S)


def two_meanings() -> SAE[Any]:
    """Latent 0 fires on animals and on colours."""
    sae = planted_sae()
    with torch.no_grad():
        sae.W_enc[1, 0] = 1.0
    return sae


MODEL, ONE, BOTH = planted_model(), planted_sae(), two_meanings()


def classes_of(text: str) -> set[int]:
    words = set(re.findall(r"\w+", text))
    return {index for index, members in CLASSES.items() if words & set(members)}


def listed(*rules: str) -> str:
    return json.dumps({"rules": [{"activates_on": text, "strength": 5} for text in rules]})


class Reviser:
    """Explains by the class that it is told of first, and adds on revision what the failing excerpts show; or answers as it is told to."""

    def __init__(self) -> None:
        self.first = lambda body: listed(TRUE[0])
        self.revise = lambda before, failed: listed(*dict.fromkeys([*before, *(TRUE[i] for i in sorted(failed))]))
        self.holds = lambda name, text: bool(set(re.findall(r"\w+", text)) & WORDS_OF.get(name, set()))
        self.answered: Callable[[str], bool] = lambda text: True

    def __call__(self, body: dict[str, Any]) -> str | None:
        messages = body["messages"]
        system, last = messages[0]["content"], messages[-1]["content"]
        if is_held(body):
            rules = [json.loads(line.split(" ", 1)[1]) for line in last.split("</rules>")[0].splitlines()[1:] if line]
            rows = [
                {"id": int(number), "rules": [n for n, name in enumerate(rules, 1) if self.holds(name, text)]}
                for number, text in EXCERPT.findall(last)
                if self.answered(text)
            ]
            return json.dumps({"excerpts": rows})
        if not system.startswith("You find out what one unit"):
            return None
        if not is_revision(body):
            return self.first(body)
        before = [row["activates_on"] for row in json.loads(messages[-2]["content"])["rules"]]
        missed = last.split("is silent, though")[0]
        return self.revise(before, {i for _, text in EXCERPT.findall(missed) for i in classes_of(text) & {0, 1}})


def is_held(body: dict[str, Any]) -> bool:
    """Whether a request asks which rules hold."""
    return body["messages"][0]["content"].startswith("You are given numbered rules")


def is_revision(body: dict[str, Any]) -> bool:
    return body["messages"][-1]["content"].startswith("The rules were tried")


@pytest.fixture
def reviser() -> Reviser:
    return Reviser()


@pytest.fixture
def server(reviser: Reviser) -> Iterator[FakeJudge]:
    with FakeJudge(rule=lambda concept, text: min(rule(concept, text), 1), writer=writer, says=reviser) as running:
        yield running


def make(server: FakeJudge, sae: SAE[Any] | None = None, corpus: Any = TEXTS, **settings: Any) -> Fade:
    return Fade(MODEL, sae or BOTH, corpus=corpus, judge=settings.pop("judge", None) or judge_of(server), **settings)


def searched(server: FakeJudge, sae: SAE[Any] | None = None, **settings: Any) -> Explanation:
    """What a search makes of latent 0."""
    return make(server, sae, **settings).explain([0], explainer="tree", progress=False)[0]


def texts_of(made: Explanation) -> list[str]:
    assert made.description is not None
    return [text for text, _ in made.description.rules]


def revisions(server: FakeJudge) -> int:
    return sum(map(is_revision, server.bodies))


def test_a_latent_with_two_meanings_gets_the_second_rule_from_where_the_first_fails(
    server: FakeJudge, tmp_path: Path
) -> None:
    fade = make(server)
    found = fade.explain([0, 3], explainer="tree", progress=False)
    made = found[0]
    assert set(texts_of(made)) == {TRUE[0], TRUE[1]} and made.description is not None
    assert made.search["select"] == 1 > made.search["root_select"] and made.search["candidates"] >= 2
    assert revisions(server) and server.requests <= fade.estimate([0], explainer="tree", scorers=()).calls <= 60
    structured = fade.explain([0], explainer="structured", progress=False)[0]
    results = fade.evaluate([made.description, structured.description], scorers=("detection",), progress=False)
    scores = {len(r.description.rules): r.metrics["detection"].value or 0.0 for r in results}
    assert scores[2] > scores[1] + 0.1, "on texts that neither was shown, tried or chosen on"
    # How many lists it was chosen among stands with the result.
    frame: Any = found.frame
    n = int(made.search["candidates"])
    assert frame["search_candidates"].iloc[0] == n and frame["search_candidates"].isna().iloc[1]
    scored: Any = results.frame["candidates"]
    assert scored.tolist().count(n) == 1 and scored.isna().sum() == 1
    told = next(r for r in results if len(r.description.rules) == 2)
    assert (
        all(f"{n} descriptions" in one._repr_html_() for one in (made, told)) and "Chosen among" in made._repr_html_()
    )
    read = read_descriptions(found.to_csv(tmp_path / "labels.csv"))
    assert [d.provenance.candidates for d in read] == [n]


def test_a_child_pays_only_for_the_rules_that_it_changed(server: FakeJudge, reviser: Reviser) -> None:
    shouted = f"{TRUE[0].upper()}."
    reviser.revise = lambda before, failed: listed(shouted, TRUE[1])
    made = searched(server, tree_roots=1, tree_width=1, tree_branching=1, tree_depth=1)
    # The root's rule is tried on refine and on select, and so is the rule that its child adds: never the root's again, however it is written.
    held = [body["messages"][-1]["content"] for body in server.bodies if is_held(body)]
    assert len(held) == 4 and [TRUE[0] in one.split("</rules>")[0] for one in held] == [True, True, False, False]
    assert all(len(EXCERPT.findall(one)) == 24 and shouted not in one for one in held)
    assert texts_of(made) == [shouted, TRUE[1]] and made.search["select"] == 1


def test_a_list_that_differs_in_case_or_order_is_not_tried_again(server: FakeJudge, reviser: Reviser) -> None:
    reviser.first = lambda body: listed("Verbs", "verbs.", TRUE[0])
    reviser.revise = lambda before, failed: listed(*(rule.capitalize() for rule in reversed(before)))
    made = searched(server)
    assert texts_of(made) == ["Verbs", TRUE[0]] and made.search["candidates"] == 1 and made.dropped == 0
    assert sum(map(is_held, server.bodies)) == 2


def test_the_longest_search_asks_what_was_estimated_and_no_more_than_60(server: FakeJudge, reviser: Reviser) -> None:
    # Every revision is new in all its rules and holds for more of the texts, so that no level is the last.
    numbers = count()
    reviser.first = lambda body: listed(*(f"rule 1 of {next(numbers)}" for _ in range(5)))
    reviser.revise = lambda before, failed: listed(*(f"rule {int(before[0].split()[1]) + 1} of {next(numbers)}" for _ in range(5)))  # fmt: skip
    reviser.holds = lambda name, text: bool(classes_of(text) & {0, 1}) and zlib.crc32(text.encode()) % 6 < int(name.split()[1])  # fmt: skip
    fade = make(server, tree_written=24)
    made = fade.explain([0], explainer="tree", progress=False)[0]
    assert texts_of(made)[0].startswith("rule 4 ") and made.search["candidates"] == 3 + 3 * 6
    calls = fade.estimate([0], explainer="tree", scorers=()).calls
    assert made.usage is not None and server.requests == made.usage.calls == calls == 57
    assert make(server).estimate([0], explainer="tree", scorers=()).calls == 54


@pytest.mark.parametrize(
    ("revised", "candidates", "asked"),
    [
        (listed(), 1, 2),
        ("I would not change a thing.\nThe rules are fine.", 1, 2 * 3),
        (listed(TRUE[0]), 1, 2),
        (listed("names of rivers"), 2, 2),
    ],
)
def test_the_root_is_kept_where_no_revision_is_better_and_the_search_ends(
    server: FakeJudge, reviser: Reviser, revised: str, candidates: int, asked: int
) -> None:
    reviser.revise = lambda before, failed: revised
    made = searched(server)
    assert texts_of(made) == [TRUE[0]] and made.search["candidates"] == candidates
    assert made.search["select"] == made.search["root_select"] < 1
    assert revisions(server) == asked, "one level; what cannot be read is asked for three times"


def test_a_revision_that_is_better_only_where_it_was_made_is_not_chosen(server: FakeJudge, reviser: Reviser) -> None:
    refine = {TEXTS[at] for at in Evidence(Subject(MODEL, BOTH, TEXTS, [0])).texts("refine").tolist() if classes_of(TEXTS[at]) & {1}}  # fmt: skip
    truly = reviser.holds
    reviser.holds = lambda name, text: text.strip() in refine if name == "learned" else truly(name, text)
    reviser.revise = lambda before, failed: listed(TRUE[0], "learned")
    made = searched(server)
    assert texts_of(made) == [TRUE[0]] and made.search["candidates"] == 2
    assert made.search["select"] == made.search["root_select"] < 1


def test_rules_that_are_right_are_not_revised(server: FakeJudge) -> None:
    made = searched(server, ONE)
    assert made.search == {"candidates": 1.0, "refine": 1.0, "select": 1.0, "root_select": 1.0}
    assert not revisions(server) and server.requests == 3 + 2


def test_no_window_of_one_role_is_of_a_text_of_another(server: FakeJudge) -> None:
    searched(server, tree_written=24)
    shown: dict[str, set[str]] = {"show": set(), "held": set()}
    for body in server.bodies:
        texts = EXCERPT.findall(body["messages"][1]["content"])
        shown["held" if is_held(body) else "show"] |= {re.sub("<<|>>", "", text).split("\n(strength")[0].strip() for _, text in texts}  # fmt: skip
    assert len(shown["held"]) > 24 and not {one for one in shown["show"] & shown["held"] if len(one.split()) > 5}


@pytest.mark.parametrize(
    ("settings", "candidates"),
    [
        ({"tree_depth": 0}, 1),
        ({"tree_width": 1, "tree_branching": 1}, 2),
        ({"tree_roots": 10, "tree_width": 10, "tree_branching": 10}, 2),
        ({"tree_roots": 1, "tree_texts": 9}, 2),
    ],
)
def test_small_and_large_trees(server: FakeJudge, settings: dict[str, Any], candidates: int) -> None:
    made = searched(server, **settings)
    assert made.search["candidates"] == candidates and len(texts_of(made)) == min(candidates, 2)
    roots = [body["seed"] for body in server.bodies if not is_held(body) and not is_revision(body)]
    assert len(roots) == len(set(roots)) == settings.get("tree_roots", 3)


def test_a_latent_with_few_texts_is_tried_on_these(server: FakeJudge) -> None:
    made = searched(server, corpus=TEXTS[:200], least_texts=1)
    assert texts_of(made)[0] == TRUE[0] and made.search["candidates"] == 2
    held = {len(EXCERPT.findall(body["messages"][-1]["content"])) for body in server.bodies if is_held(body)}
    assert max(held) < 24


@pytest.mark.parametrize("never", [True, False])
def test_without_texts_of_both_sides_to_choose_on_one_list_is_asked_for(server: FakeJudge, never: bool) -> None:
    # On the texts to choose on it never fires, or on all of them; a text's role is its own.
    select = {TEXTS[at] for at in Evidence(Subject(MODEL, BOTH, TEXTS, [0])).texts("select").tolist()}
    corpus = [text for text in TEXTS if text not in select or bool(classes_of(text) & {0, 1}) != never]
    made = searched(server, corpus=corpus)
    assert texts_of(made) == [TRUE[0]] and made.search == {"candidates": 1.0} and server.requests == 1


def test_texts_that_the_judge_leaves_out_tell_nothing(server: FakeJudge, reviser: Reviser) -> None:
    # Of the second rule it answers on texts without colours alone.
    reviser.answered = lambda text: not classes_of(text) & {1}
    made = searched(server, tree_depth=1)
    assert texts_of(made) == [TRUE[0]] and made.search["select"] == made.search["root_select"] < 1


def test_what_is_not_known_of_a_list_is_no_gain() -> None:
    def window(at: int, kind: str) -> Window:
        return Window(Place(at, 0, 1, kind=kind), (f"{kind} {at}",), (0,), (0.0,))

    fires, silent = ([window(at, kind) for at in range(4)] for kind in ("active", "random_silent"))
    evidence = FeatureEvidence(0, (), held={"select": (*fires, *silent)})
    known = {"all": {f"active {at}" for at in range(3)}, "few": {"active 0"}}

    class Few:
        async def ask(self, request: Request) -> Answer:
            rules = [name for name in known if f'"{name}"' in request.messages[-1]["content"]]
            rows = [
                {"id": int(n), "rules": [at for at, rule in enumerate(rules, 1) if text in known[rule]]}
                for n, text in EXCERPT.findall(request.messages[-1]["content"])
                if rules != ["few"] or text in ("active 0", "random_silent 0")
            ]
            return Answer(json.dumps({"excerpts": rows}))

    nodes = [Node((("all", 5),), "0"), Node((("few", 5),), "1"), Node((("all", 5), ("few", 3)), "2")]

    async def work(questions: Questions) -> None:
        await Answers(questions, evidence, 0).score(nodes, "select")

    with Judge(Few()) as judge:
        judge.submit(work).result()
    # 3 of 4 told apart from all silent ones; 1 pair of 16 known; where the surer rule holds the other one does not matter.
    assert [node.scores["select"] for node in nodes] == [0.875, 0.5 + 0.5 / 16, pytest.approx(0.5 + 0.5 * 3 / 16)]


def test_prompts_that_are_too_long_are_halved_by_one_rule(server: FakeJudge) -> None:
    full = (400, {"error": {"message": "maximum context length is 8192 tokens", "code": "context_length_exceeded"}})

    def reply(body: dict[str, Any]) -> Any:
        said = body["messages"][-1 if is_held(body) else -3 if is_revision(body) else -1]["content"]
        return full if said.count("</excerpt") > (10 if is_held(body) else 12) else None

    server.reply = reply
    made = searched(server, tree_roots=1, tree_width=1)
    assert set(texts_of(made)) == {TRUE[0], TRUE[1]} and made.search["select"] == 1 and len(made.shown) <= 12
    refused = [body for body in server.bodies if reply(body)]
    assert refused and not any(map(is_revision, refused)), "a revision begins with what its parent could be shown"
    server.reply = lambda body: full
    assert make(server).explain([0], explainer="tree", progress=False).reasons == {"too_long": 1}


def test_rules_that_are_more_than_asked_for_are_counted_of_the_chosen_list(server: FakeJudge, reviser: Reviser) -> None:
    reviser.first = lambda body: listed(TRUE[0], "one", "two")
    reviser.revise = lambda before, failed: listed(TRUE[0], TRUE[1], "one", "two", "three", "four")
    made = make(server, rule_cap=2).explain([0], explainer="tree", progress=False)
    assert texts_of(made[0]) == [TRUE[0], TRUE[1]] and made[0].dropped == 4 == made.frame["dropped_rules"].iloc[0]


def test_all_that_a_search_costs_is_counted_for_its_feature(server: FakeJudge, reviser: Reviser) -> None:
    # A judge that rates singly is asked about a rule and a text by itself; another one writes.
    with FakeJudge(writer=writer) as other:
        asked = Judge("planted", base_url=other.base_url, api_key="sk-made-up")
        judge = Judge("planted", base_url=server.base_url, api_key="sk-made-up", rating="single", writer=asked)
        made = searched(server, judge=judge, tree_written=6, tree_texts=8)
        assert other.requests == 1 and made.usage is not None, "the first lists are all the same"
        assert made.usage.calls == server.requests + other.requests > 3 + 2 * 8


def test_a_search_that_was_stopped_asks_nothing_twice(server: FakeJudge, tmp_path: Path) -> None:
    def sent() -> list[str]:
        return [json.dumps(body, sort_keys=True) for body in server.bodies]

    whole = searched(server, tree_written=12)
    asked = sent()
    for stop in (2, 6):
        server.bodies.clear()
        judge = Judge(
            "planted", base_url=server.base_url, api_key="sk-SECRET-planted-key", max_calls=stop, concurrency=1
        )
        known: dict[str, Any] = {"explainer": "tree", "store": tmp_path / str(stop), "progress": False}
        with pytest.raises(JudgeError):
            make(server, judge=judge, tree_written=12).explain([0], **known)
        assert 0 < len(sent()) < len(asked)
        made = make(server, tree_written=12).explain([0], **known)[0]
        assert sorted(sent()) == sorted(asked) and (made.description, made.search, made.usage) == (whole.description, whole.search, whole.usage)  # fmt: skip


def test_texts_written_for_a_rule_that_leave_the_latent_silent_narrow_it(server: FakeJudge, reviser: Reviser) -> None:
    # A latent of one noun; the others are in no natural text, but in those that the judge writes for "nouns".
    nouns, broad, narrow = ("house", "tree", "river"), "nouns", 'the word "house"'
    sae = planted_sae()
    with torch.no_grad():
        sae.W_enc[:, 0] = 0.0
        sae.W_enc[8 + OTHERS.index("house"), 0] = 1.0
    others = set(nouns[1:])
    corpus = [text for text in TEXTS if not others & set(text.split())]
    reviser.first = lambda body: listed(broad)
    reviser.revise = lambda before, failed: listed(narrow)
    reviser.holds = lambda name, text: bool(set(text.split()) & (set(nouns) if name == broad else {"house"}))
    server.writer = lambda concept, i: [f"the old {nouns[at % 3]} today {'and ' * at}again" for at in range(30)]
    assert texts_of(searched(server, sae, corpus=corpus)) == [broad], "nothing natural speaks against it"
    server.bodies.clear()
    made = searched(server, sae, corpus=corpus, tree_written=24)
    assert texts_of(made) == [narrow] and made.search["select"] == 1 > made.search["root_select"]
    revised = [body["messages"][-1]["content"] for body in server.bodies if is_revision(body)]
    failed = {text.strip() for said in revised for _, text in EXCERPT.findall(said.split("is silent, though")[1])}
    assert failed and all(others & set(text.split()) for text in failed)
    held = [[text.strip() for _, text in EXCERPT.findall(body["messages"][-1]["content"])] for body in server.bodies if is_held(body)]  # fmt: skip
    assert all(len(texts) == 24 for texts in held)
    chosen = [texts for texts in held if not failed & set(texts)]
    assert chosen and all(any(others & set(text.split()) for text in texts) for texts in chosen), "of the written texts too some are kept to choose on"  # fmt: skip


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
