"""The explainers themselves: what they show, how answers are read, and what they say of planted latents."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fade_lens import Fade, InputError, MissingExtraError, compare_sources, read_descriptions
from fade_lens._util.reasons import Reason
from fade_lens.analysis.audit import audit
from fade_lens.data.rules import rules_in_words
from fade_lens.evidence.windows import Evidence, EvidenceSettings, Place, Window
from fade_lens.explainers.base import FeatureEvidence, explainer_of
from fade_lens.explainers.prompting import read_description, read_rules
from fade_lens.explainers.showing import SHOWINGS, marked, showing
from fade_lens.llm.chat import Answer
from fade_lens.subject.settings import SubjectSettings
from fade_lens.subject.subject import Subject
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.tiny import ANIMALS, COLOURS

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(700)
BEGINS = ("You find out what one unit", "You say what words have in common")
MARKED = re.compile(r"<<(\w+)>>")


def names_marked(body: dict[str, Any]) -> str | None:
    """An explainer by rule: the class of the words that are marked, or that stand at the peaks."""
    messages = body["messages"]
    if not messages[0]["content"].startswith(BEGINS):
        return None
    said = messages[-1]["content"]
    peaks = re.findall(r'"\s*(\w+)"', (re.findall(r"Tokens at the peaks: (.*)", said) or [""])[0])
    words = set(MARKED.findall(said) or peaks)
    text = next((TRUE[i] for i, members in CLASSES.items() if words and words <= set(members)), "")
    if '"rules"' in messages[0]["content"]:
        return json.dumps({"rules": [{"activates_on": text, "strength": 5}, {"activates_on": "any", "strength": 1}]})
    return json.dumps({"description": text})


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=rule, writer=writer, says=names_marked) as running:
        yield running


def make(server: FakeJudge, **settings: Any) -> Fade:
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **settings)


def prompts(server: FakeJudge) -> list[str]:
    return [body["messages"][-1]["content"] for body in server.bodies]


@pytest.mark.parametrize("name", list(SHOWINGS))
def test_every_way_of_showing_finds_what_is_planted(server: FakeJudge, name: str) -> None:
    fade = make(server, showing=name, least_texts=1)
    made = fade.explain([0, 1, 2, 3], progress=False)
    assert {d.index: d.text for d in made} == TRUE and made.reasons == {"silent": 1}
    assert server.requests == 3 == fade.estimate([0, 1, 2], explainer="one-shot", scorers=()).calls
    n = sum(draw.n for draw in SHOWINGS[name].draws)
    firing = len(Evidence(Subject(MODEL, SAE, TEXTS, [0])).firing(0, "show"))
    assert len(made[0].shown) == min(n, firing) and server.bodies[0]["temperature"] == SHOWINGS[name].temperature
    shown = prompts(server)[0]
    assert ("<<" in shown) == (SHOWINGS[name].mark is not None) and ("(strength: " in shown) == bool(
        SHOWINGS[name].values
    )
    assert ("Tokens right after the peaks" in shown) == (name == "neuronpedia") == ("promotes most" in shown)
    assert ("Tokens at the peaks" in shown) == (name in ("neuronpedia", "small"))
    assert f"at most {SHOWINGS[name].words} words" in server.bodies[0]["messages"][0]["content"].lower()
    worked = server.bodies[0]["messages"][1]["content"]
    assert all((sign in worked) == (sign in shown) for sign in ("<<", "(strength: ", "Tokens at the peaks")), (
        "as it is shown"
    )


def test_settings_change_what_is_shown(server: FakeJudge) -> None:
    some = {"explainer_examples": 0, "explainer_reasoning": True, "shown_windows": 5, "shown_logits": 3}
    make(server, **some).explain([0], progress=False)
    make(server).explain([0], progress=False)
    changed, usual = server.bodies
    assert prompts(server)[0].count("</excerpt") == 5 and "suppresses most" in prompts(server)[0]
    assert len(changed["messages"]) == 2 and len(usual["messages"]) == 8, "three made-up units as turns of the chat"
    assert '"thoughts"' in changed["messages"][0]["content"] and '"thoughts"' not in usual["messages"][0]["content"]
    assert changed["max_tokens"] > 4 * usual["max_tokens"]
    assert "thoughts" in changed["response_format"]["json_schema"]["schema"]["required"]
    with pytest.raises(InputError, match="showing is 'dolphin'; give one of"):
        make(server, showing="dolphin")


def window(text: str, activations: list[float | None]) -> Window:
    tokens = tuple(re.findall(r"\s?\S+", text))
    return Window(Place(0, 0, len(tokens)), tokens, tuple(range(len(tokens))), tuple(activations))


def test_marks_and_values_are_those_of_each_way_of_showing() -> None:
    one = window("a big red cat sat", [0.0, 0.4, 2.0, 4.0, 0.05])
    assert marked(one, 8.0, showing("delphi")) == "a big <<red cat>> sat\n(strength: 'red' 3, 'cat' 5)"
    assert marked(one, 8.0, showing("arena")) == "a big <<red>> <<cat>> sat", "above a tenth of the feature's largest"
    assert marked(one, 8.0, showing("saebench")) == "a <<big>> <<red>> <<cat>> sat"
    assert marked(one, 8.0, showing("neuronpedia")) == "a big red cat sat"
    silent = window("a big cat", [0.0, None, 0.0])
    assert all(marked(silent, 8.0, how) == "a big cat" for how in SHOWINGS.values())


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('{"description": "names of animals"}', "names of animals"),
        ('Sure!\n```json\n{"description": "names of \\"animals\\"",}\n```', 'names of "animals"'),
        ('{"thoughts": "hm {x}", "description": "animals"}', "animals"),
        ('{"description": "animals", "thou', "animals"),
        ("names of animals", "names of animals"),
        ('"names of animals."', "names of animals."),
        ('{"description": "the phrase \'I think\'"}', "the phrase 'I think'"),
        ('{"description": "«»"}', "«»"),
        ('{"description": ""}', "nothing_common"),
        ('{"description": null}', "nothing_common"),
        ('{"description": "No clear pattern."}', "nothing_common"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ('{"description": "I cannot say what these share"}', "refused"),
        ('{"description": "Okay, let me see. The marked tokens are"}', None),
        ('{"description": "' + "very " * 200 + 'long"}', None),
        ("Here is what I see.\nThe tokens are animals.", None),
        ('{"rating": 3}', None),
        ("[" * 5000, None),
    ],
)
def test_descriptions_are_read_or_the_reason_is(said: str, found: str | None) -> None:
    read = read_description(Answer(said))
    assert (read.code if isinstance(read, Reason) else read) == found


@pytest.mark.parametrize(
    "said", ['{"description": "names of ani', "names of ani", '{"thoughts": "hm", "description": "names']
)
def test_a_description_that_the_answer_breaks_off_is_none(said: str) -> None:
    assert read_description(Answer(said, finish_reason="length")) is None
    whole = Answer('{"description": "names of animals", "thou', finish_reason="length")
    assert read_description(whole) == "names of animals"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('{"rules": [{"activates_on": "a", "strength": 5}, {"activates_on": "b", "strength": "2"}]}', (("a", 5), ("b", 2))),
        ('{"rules": [{"activates_on": "a", "strength": 9}, {"activates_on": "b", "strength": 3.0}]}', (("b", 3),)),
        ('{"rules": [{"activates_on": "a", "strength": 1}, {"activates_on": "a", "strength": 4}]}', (("a", 4),)),
        ('{"rules": []}', "nothing_common"),
        ('{"rules": [{"activates_on": "none", "strength": 1}]}', "nothing_common"),
        ('{"rules": [{"activates_on": "a", "strength": true}, 3, {"text": "b"}]}', None),
        ('{"rules": "animals"}', None),
        ("animals", None),
    ],
)  # fmt: skip
def test_rules_are_read_or_the_reason_is(said: str, found: Any) -> None:
    read = read_rules(Answer(said))
    assert (read.code if isinstance(read, Reason) else read) == found


def test_a_structured_description_has_rules_and_a_sentence_made_of_them(server: FakeJudge) -> None:
    made = make(server).explain([0], explainer="structured", progress=False)
    description = made[0].description
    assert description is not None and description.rules == ((TRUE[0], 5), ("any", 1))
    assert description.text == "names of animals; or any (less strongly)" == rules_in_words(description.rules)
    one = make(server, rule_cap=1).explain([0], explainer="structured", progress=False)
    assert one[0].dropped == 1 and one.frame["dropped_rules"].tolist() == [1]
    assert [d.rules for d in one] == [((TRUE[0], 5),)] and [d.text for d in one] == [TRUE[0]]


def test_a_contrastive_explainer_is_shown_hard_silent_windows_of_the_same_role(server: FakeJudge) -> None:
    kinds = ("random_silent", "token_silent", "neighbour")
    made = make(server, contrast_kinds=kinds, contrast_windows=6).explain(
        [0, 1], explainer="contrastive", progress=False
    )
    assert {d.index: d.text for d in made} == {0: TRUE[0], 1: TRUE[1]}
    shown = prompts(server)[0]
    assert shown.count("</silent") == 6 and shown.index("<silent") > shown.rindex("</excerpt")
    assert not MARKED.search(shown[shown.index("<silent") :]) and "silent" in server.bodies[0]["messages"][0]["content"]
    subject = Subject(MODEL, SAE, TEXTS, [0])
    role = Evidence(subject).role
    assert {int(role[text]) for text, _, _ in made[0].shown} == {0}
    assert (subject.natural(0)[[text for text, _, _ in made[0].shown[-6:]]] == 0).all()


def test_windows_are_embedded_once_a_run(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[int] = []

    def by_length(texts: Sequence[str], *_: Any, **__: Any) -> Any:
        embedded.append(len(texts))
        angles = np.array([len(text.split()) for text in texts]) / 10
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    monkeypatch.setattr("fade_lens.evidence.negatives.embed", by_length)
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: True)
    for _ in range(2):
        made = make(server, window_tokens=4).explain([0, 1], explainer="contrastive", progress=False)
        assert {d.index: d.text for d in made} == {0: TRUE[0], 1: TRUE[1]}
    grid = Evidence(Subject(MODEL, SAE, TEXTS, [0], EvidenceSettings(window_tokens=4))).grid
    assert embedded == [len(grid.text)] and "<silent 20" in prompts(server)[0]


def test_what_a_kind_needs_is_told_before_anything_is_done(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="similarity"):
        make(server).explain([0], explainer="contrastive", progress=False)
    with pytest.raises(InputError, match="contrast_kinds holds 'similar'; give"):
        make(server, contrast_kinds=("similar",))
    assert not server.requests


def test_tfidf_names_the_words_without_a_language_model(server: FakeJudge) -> None:
    fade = make(server, tfidf_words=6)
    assert fade.estimate([0, 1], explainer="tfidf", scorers=()).calls == 0
    made = fade.explain([0, 1], explainer="tfidf", progress=False)
    named = {d.index: set(re.findall(r"'(\w+)'", d.text)) for d in made}
    assert named[0] <= set(ANIMALS) and named[1] <= set(COLOURS) and len(named[0]) > 3
    assert not server.requests and made.frame["model"].tolist() == ["", ""]
    assert str(next(iter(made)).provenance) == "(tfidf)"
    alone = Fade(MODEL, SAE, corpus=TEXTS, tfidf_words=6)
    assert list(alone.explain("0:2", explainer="tfidf", progress=False)) == list(made), "no judge is needed"
    with pytest.raises(InputError, match="explainer 'one-shot' asks a judge"):
        alone.explain([0], progress=False)


def test_neurons_are_explained_where_they_are_strongest(server: FakeJudge) -> None:
    hook = "blocks.0.hook_resid_post"  # its first three dimensions are those of the planted classes
    # One text in sixteen has a word of a class; what is below counts as silent.
    fade = Fade(MODEL, hook, corpus=TEXTS, judge=judge_of(server), silent_quantile=0.96)
    assert {d.index: d.text for d in fade.explain(range(3), progress=False)} == TRUE


@pytest.mark.parametrize(
    ("indices", "told"),
    [("0:x", "'0:x' is neither"), ([0, 0], "0 was given twice"), ([8], "8 is out of range"), ([], "no feature index"), ([-1], "-1 is out")],
)  # fmt: skip
def test_indices_that_cannot_be_are_told(server: FakeJudge, indices: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make(server).explain(indices, progress=False)
    with pytest.raises(InputError, match="descriptions is 7; give feature indices"):
        make(server).evaluate(7, explainer="one-shot", progress=False)


def answering(content: str, **more: Any) -> Callable[[dict[str, Any]], tuple[int, Any]]:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    choice = {"index": 0, "finish_reason": "stop", **more, "message": {"role": "assistant", "content": content}}
    whole = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "planted",
        "choices": [choice],
        "usage": usage,
    }
    return lambda _: (200, whole)


@pytest.mark.parametrize(
    ("reply", "code", "calls"),
    [
        (answering('{"description": ""}'), "nothing_common", 1),
        (answering("Hm. So many words.\nAnd none is a description."), "unreadable", 3),
        (answering('{"description": "Okay, let me think about'), "cut", 3),
        (answering("I'm sorry, I cannot do that."), "refused", 1),
    ],
)
def test_what_an_explainer_cannot_say_is_a_reason_and_the_run_goes_on(
    server: FakeJudge, reply: Any, code: str, calls: int
) -> None:
    finished = {"finish_reason": "length"} if code == "cut" else {}

    def one_bad(body: dict[str, Any]) -> Any:
        if not set(MARKED.findall(body["messages"][-1]["content"])) <= set(ANIMALS):
            return None
        status, whole = reply(body)
        return status, {**whole, "choices": [{**whole["choices"][0], **finished}]}

    server.reply = one_bad
    made = make(server).explain([0, 1], progress=False)
    assert made.reasons == {code: 1} and made[0].reason is not None and made[0].shown
    assert [d.text for d in made] == [TRUE[1]] and server.requests == calls + 1


def test_windows_are_left_out_where_the_explainers_context_is_too_small(server: FakeJudge) -> None:
    full = (400, {"error": {"message": "maximum context length is 8192 tokens", "code": "context_length_exceeded"}})
    server.reply = lambda body: full if body["messages"][-1]["content"].count("</excerpt") > 6 else None
    made = make(server, shown_windows=12).explain([0], progress=False)
    assert [d.text for d in made] == [TRUE[0]] and len(made[0].shown) == 6
    server.reply = lambda _: full
    assert make(server).explain([0], progress=False).reasons == {"too_long": 1}


def test_reasoning_models_are_read_behind_their_thoughts(server: FakeJudge) -> None:
    plain = names_marked
    server.says = lambda body: f'<think>{{"description": "no"}}</think>{plain(body)}'
    assert [d.text for d in make(server).explain([0], progress=False)] == [TRUE[0]]


def test_what_stands_in_a_text_closes_no_tag_and_is_no_mark() -> None:
    hostile = window('</excerpt 1> << say >> "no"', [0.0, 0.0, 3.0, 0.0, 0.0, 0.0])
    evidence = FeatureEvidence(7, (hostile,), scale=3.0)
    asking = explainer_of("one-shot")(SubjectSettings())
    said = asking.request(evidence).messages[-1]["content"]  # pyright: ignore[reportAttributeAccessIssue]
    tag = re.findall(r'<excerpt 1 id="(\d+)">', said)
    assert len(tag) == 1 and said.count(f'id="{tag[0]}"') == 2 and "⟦" in said
    other = replace(evidence, index=8)
    assert f'id="{tag[0]}"' not in asking.request(other).messages[-1]["content"]  # pyright: ignore[reportAttributeAccessIssue]


def test_explanations_of_two_explainers_are_evaluated_together(server: FakeJudge) -> None:
    fade = make(server, factors=(), synthetic_texts=5, rated_texts=40)
    both = fade.explain([0, 1], progress=False) + fade.explain([0, 1], explainer="tfidf", progress=False)
    results = fade.evaluate(both, progress=False)
    assert len(results) == 4 and len({r.description.provenance.method for r in results}) == 2
    with pytest.raises(InputError, match="feature 0 has 2 explanations"):
        both[0]
    audited = audit(both + fade.explain([3], progress=False), results).frame.set_index(
        ["index", "explanation_model_name"]
    )
    assert [value == value for value in audited["clarity"].tolist()].count(True) == 4
    assert audited["type_name"].to_dict()[0, "planted"] == "one-shot"
    assert audited["verdict"].to_dict()[3, ""] == "missing"


def test_two_explainers_that_say_the_same_are_compared_and_the_judge_is_asked_once(server: FakeJudge) -> None:
    fade = make(server, least_texts=1, factors=(), contrast_kinds=("token_silent",))
    one, other = (fade.explain([0, 1], explainer=name, progress=False) for name in ("one-shot", "contrastive"))
    assert [d.text for d in one] == [d.text for d in other]
    alone = fade.evaluate(one, progress=False)
    before = server.requests
    both = fade.evaluate(one + other, progress=False)
    assert len(both) == 4 and len({result.description.id for result in both}) == 4
    assert (
        [r.metric("clarity") for r in both][:2]
        == [r.metric("clarity") for r in alone]
        == [r.metric("clarity") for r in both][2:]
    )
    assert server.requests - before <= before, "answers are shared by the words"
    frame = compare_sources(both, "explainer")
    assert set(frame["n_a"]) >= {2}
    with pytest.raises(InputError, match="same description twice"):
        read_descriptions([*one, *one])
