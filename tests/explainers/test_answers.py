"""What models answer when they are asked to explain, other than a plain description: read where it says something, and a reason where not."""

import json
import re
from typing import Any

import pytest

from fade_lens import Fade, Judge, Request
from fade_lens._util.reasons import Reason
from fade_lens.data.leaks import once, recited
from fade_lens.evidence.marking import MARKS, marks
from fade_lens.evidence.windows import Place, Window
from fade_lens.explainers.prompting import EXAMPLES, OWN, read_description, read_rules
from fade_lens.llm.chat import Answer
from tests.planted import TRUE, natural_texts, planted_model, planted_sae


def window(text: str) -> Window:
    tokens = tuple(re.findall(r"\s?\S+", text))
    return Window(Place(0, 0, len(tokens)), tokens, tuple(range(len(tokens))), (1.0,) + (0.0,) * (len(tokens) - 1))


SHOWN = tuple(
    map(
        window,
        (
            "The committee met on Tuesday to discuss the new budget for schools and roads",
            "It is especially cold in winter when the wind blows from the north",
            "I like fruit, especially apples and pears from our own garden in the village",
            "All rights reserved. No part of this may be copied without written permission",
            "as before. All rights reserved. No part of this may be copied without written permission",
        ),
    )
)


def read(text: Any, **more: Any) -> str | None:
    found = read_description(Answer(text if more.get("bare") else json.dumps({"description": text})), SHOWN)
    return found.code if isinstance(found, Reason) else found


@pytest.mark.parametrize(
    "recital",
    [
        "a word or a piece of a word, a kind of word, a topic, a tone, a layout, a place in a sentence, a language",
        "The unit reacts to a word or piece of a word, a kind of word, a topic.",
        "A kind of word", "a topic", "a construct of code", "or whatever follows", "At most 20 words, no full sentence",
        *(description for _, description in EXAMPLES),
        "Words for liquids getting hot in cooking, such as boiling",
        "an assignment or comparison sign with its value",
        EXAMPLES[0][0][0].replace("<<", "").replace(">>", ""),
        "Be as specific as the excerpts allow and no more: the description should hold for nearly all of them",
        "excerpts in which the unit is active, and the tokens at which it is most active",
        "…",
    ],
)  # fmt: skip
def test_what_repeats_the_prompt_is_no_description(recital: str) -> None:
    assert read(recital) is None
    assert read_rules(Answer(json.dumps({"rules": [{"activates_on": recital, "strength": 5}]}))) is None


@pytest.mark.parametrize(
    "honest",
    [
        'the word "especially"', "a piece of a word that ends in -ing", "a place name in a sentence about travel", "words for liquids in cooking",
        "names of liquids that are heated", "assignment signs in code", "comparison operators with their values in shell code",
        "a language other than English", "the language of contracts", "the topic of a news report", 'makes the model say "now"',
        "makes the model say the name of a city", "the first word of a sentence", "excerpts from the Bible", "tokens right after a colon",
        "no longer", "nothing but", "random numbers", "phrases of negation such as no pattern", "very very emphatic words", "«»",
        "HTML closing tags such as </div>", "bold marks ** in Markdown", "the tag <b>", 'JSON keys such as "description"',
        "All rights reserved. No part of this may be copied without written permission",
    ],
)  # fmt: skip
def test_honest_descriptions_that_share_words_with_the_prompt_stay_as_they_are(honest: str) -> None:
    assert read(honest) == honest


@pytest.mark.parametrize(
    "dressed",
    [
        "**names of animals**", "# names of animals", "- names of animals", "Description: names of animals", "**Description:** names of animals",
        "<p>names of animals</p>", "names of animals</description>", "<answer>names of animals</answer>", "`names of animals`", "“names of animals”",
        "The unit reacts to names of animals", "This neuron fires on names of animals", "names of <<animals>>", ", ".join(["names of animals"] * 12),
        "names of animals " * 50, ["names of animals"],
    ],
)  # fmt: skip
def test_what_stands_around_a_description_is_taken_off(dressed: Any) -> None:
    assert read(dressed) == "names of animals"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("There is no clear pattern in these excerpts.", "nothing_common"),
        ("I see no excerpts.", "nothing_common"),
        ("There are no excerpts provided", "nothing_common"),
        ("Not enough information to decide", "nothing_common"),
        ("Nothing that the excerpts share", "nothing_common"),
        ("I cannot see any excerpts", "refused"),
        ("Please provide the excerpts", "refused"),
        ("It is not possible to say", "refused"),
        ("Unable to determine", "refused"),
        ("My apologies, but no", "refused"),
        ("Lo siento, no puedo ayudar", "refused"),
        ("Es tut mir leid, das geht nicht", "refused"),
        ("抱歉，我无法看到任何摘录", "refused"),
        ("К сожалению, я не могу", "refused"),
        ("The committee met on Tuesday to discuss the new budget for schools and roads", None),
        ("It is <<especially>> cold in winter when the wind blows from the north", None),
        ("It fires in excerpt 3 and excerpt 7", None),
        ("especially (strength: 'especially' 9)", None),
        ('<excerpt 3 id="412">', None),
        ("<b>" * 20_000 + "</b>" * 20_000, None),
        ("Okay, let me think about what these share", None),
    ],
)
def test_what_says_nothing_has_a_reason(said: str, code: str | None) -> None:
    assert read(said) == code == read(said, bare=True)


def test_runs_and_repetitions_are_general() -> None:
    source = "Every third bus on the island is painted green, blue or with stripes."
    assert (
        recited("third bus on the island is painted", [source, "no bus"]) == [source]
        and recited("with stripes or blue", [source]) == []
    )
    assert not recited("", [source]) and not recited("bus", [])
    assert (
        once("ha ha ha") == "ha ha ha"
        and once("a b, a b, a b, a b, a") == "a b"
        and once("*** *** *** ***") == "*** *** *** ***"
    )
    assert all(recited(own, OWN) for own in OWN)


def test_marks_are_told_from_the_brackets_of_a_text() -> None:
    assert marks(SHOWN) == MARKS[0]
    assert marks([*SHOWN, window("a <b> tag")]) == marks([window("x -> y")]) == MARKS[1], "not <<<b>>>"


class Warming:
    """A language model that recites the prompt while it is cold."""

    name = "warming"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def ask(self, request: Request) -> Answer:
        self.asked.append(request)
        cold = not request.parameters["temperature"]
        return Answer(json.dumps({"description": EXAMPLES[0][1] if cold else TRUE[0]}))


def test_a_model_that_recites_is_asked_again_warmer() -> None:
    """At temperature 0 it would say the same again."""
    model = Warming()
    with Judge(model, price=(0.0, 0.0)) as judge:
        made = Fade(planted_model(), planted_sae(), corpus=natural_texts(300), judge=judge).explain([0], progress=False)
    assert [d.text for d in made] == [TRUE[0]] and len(model.asked) == 2
    assert model.asked[0].parameters["seed"] != model.asked[1].parameters["seed"]
