import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fade_lens.judge import Prompts, single
from fade_lens.judge.single import BACKGROUND, Calibration, score

finite = st.floats(-50, 50)
CONCEPT = 'the word "here"'
messages = Prompts().single_messages


def test_messages_are_a_chat_that_ends_with_the_text_and_the_concept():
    chat = messages(CONCEPT, "Come here.")
    assert [turn["role"] for turn in chat] == ["system", *["user", "assistant"] * ((len(chat) - 2) // 2), "user"]
    assert "Come here." in chat[-1]["content"]
    assert CONCEPT in chat[-1]["content"]
    assert {turn["content"] for turn in chat if turn["role"] == "assistant"} <= {"Yes", "No"}


def test_all_but_the_last_message_is_the_same_for_every_concept_and_text():
    """A prompt cache keeps it."""
    assert messages("a", "b")[:-1] == messages("c", "d")[:-1]


@pytest.mark.parametrize(
    ("concept", "text", "note"),
    [
        ('the word "here"', "Come HERE, please.", "“here” in the text: yes"),
        ('the word "here"', "Come over there.", "“here” in the text: only inside “there”"),
        ("the substring 'Rel'", "Nothing of it.", "“Rel” in the text: no"),
        ('the abbreviation "U.S." for the United States', "The U.S.-based firm", "“U.S.” in the text: yes"),
        ("the phrases “apart from” and “aside from”", "Aside from that", "“aside from” in the text: yes"),
        ("the `#include` directive", "#include <a.h>", "“#include” in the text: yes"),
        ("单词「猫」", "黑猫睡着了", "“猫” in the text: yes"),
        ("the Thai word 'ไม่'", "ฉันไม่รู้", "“ไม่” in the text: yes"),
        ("the Korean word “사과”", "풋사과", "“사과” in the text: only inside “풋사과”"),
    ],
)
def test_what_a_concept_quotes_is_looked_up(concept: str, text: str, note: str):
    assert note in messages(concept, text)[-1]["content"].splitlines()


@pytest.mark.parametrize(
    "concept", ['a coming time, such as "the next year"', "the author's name in a dogs' home", "years"]
)
def test_examples_and_apostrophes_are_not_looked_up(concept: str):
    assert "in the text:" not in messages(concept, "the next year")[-1]["content"]


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_concept_and_text_make_a_chat(concept: str, text: str):
    """Whatever is quoted, regular expressions' own characters included."""
    assert text in messages(f'{concept} "{concept[:20]}"', text)[-1]["content"]


def test_background_is_short_and_varied():
    assert 4 <= len(set(BACKGROUND)) == len(BACKGROUND) <= 24
    assert all(20 < len(text) <= 300 for text in BACKGROUND)


def test_score_sums_spellings():
    top = [
        ("Yes", math.log(0.3)),
        (" yes", math.log(0.2)),
        ("No", math.log(0.1)),
        ("NO", math.log(0.15)),
        ("Maybe", -9.0),
    ]
    assert score(top) == pytest.approx(math.log(0.5 / 0.25))


@pytest.mark.parametrize("top", [[], [("Maybe", -0.1), ("Note", -3.0), ("yesterday", -4.0)]])
def test_score_is_none_without_yes_and_no(top: list[tuple[str, float]]):
    assert score(top) is None


def test_an_answer_that_is_not_listed_is_as_likely_as_the_last_listed():
    assert score([("Yes", -0.01), ("Sure", -6.0), ("OK", -7.0)]) == pytest.approx(6.99)
    assert score([("No", -0.01), ("Never", -7.0)]) == pytest.approx(-6.99)


def test_score_stays_finite_where_a_server_sends_minus_infinity():
    assert score([("Yes", -0.01), ("No", -math.inf)]) is not None
    assert math.isfinite(score([("Yes", -0.01), ("No", -math.inf), ("x", -5.0)]) or math.nan)


@given(finite, finite)
def test_score_is_antisymmetric(yes: float, no: float):
    assert score([("Yes", yes), ("No", no)]) == pytest.approx(-(score([("No", yes), ("Yes", no)]) or 0.0))


@given(st.lists(finite, min_size=1, max_size=24), finite, finite)
def test_ratings_grow_with_the_score(background: list[float], a: float, b: float):
    calibration = Calibration.fit(background)
    low, high = sorted((a, b))
    assert calibration.rating(low) <= calibration.rating(high)
    assert calibration.graded(low) <= calibration.graded(high)
    assert calibration.rating(low) in (0, 1, 2)


@given(st.lists(finite, min_size=1, max_size=24))
def test_the_order_of_the_background_does_not_matter(background: list[float]):
    assert Calibration.fit(background) == Calibration.fit(sorted(background))


@given(st.lists(st.floats(-2, 2), min_size=9, max_size=24), st.floats(20, 50))
def test_a_few_background_texts_that_express_the_concept_hardly_move_the_zero(background: list[float], high: float):
    """A concept such as "program code" is in some of the background."""
    n = len(background) // 4
    moved = Calibration.fit([high] * n + background[n:])
    assert abs(moved.graded(0.0) - Calibration.fit(background).graded(0.0)) <= 4.0


def test_without_background_scores_are_taken_as_they_are():
    assert Calibration.fit([]).graded(1.5) == 1.5


def test_clear_cases():
    calibration = Calibration.fit([-3.0, -2.5, -4.0, -3.5, 6.0])
    assert [calibration.rating(s) for s in (-20.0, -3.0, 20.0)] == [0, 0, 2]


def test_one_token_with_its_alternatives_is_asked_for():
    assert single.PARAMETERS["max_tokens"] == 1
    assert single.PARAMETERS["logprobs"] is True


def test_where_a_quoted_string_stands() -> None:
    def note(concept: str, text: str) -> str:
        return messages(concept, text)[-1]["content"]

    assert "“!” in the text: yes" in note('the exclamation mark "!"', "Come in!")
    assert "“!” in the text: no" in note('the exclamation mark "!"', "Come in.")
    assert "“Mr.” in the text: yes" in note('the title "Mr."', "I met Mr.Green")
    assert "“new” in the text: only inside “renewed”" in note('the word "new"', "a renewed lease")
