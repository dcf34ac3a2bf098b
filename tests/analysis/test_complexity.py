"""How complex descriptions are: graded by the digits' probabilities or by the number, with the judge's own doubt as interval."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fade_lens import Description, Explanations, InputError, Judge, JudgeError, Results, complexity
from fade_lens.analysis.complexity import EXAMPLES, TASK, estimate, grade_in
from fade_lens.llm.chat import Answer
from tests.fake_judge import FakeJudge
from tests.made_up import made_up_result

GRADES = {"the word 'sun'": "0", "names of animals": "2", "irony": "5"}


def said(body: dict[str, Any]) -> str | None:
    return GRADES.get(body["messages"][-1]["content"].strip('"'), "3")


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(says=said) as running:
        yield running


def judge_of(server: FakeJudge, **more: Any) -> Judge:
    return Judge("m", base_url=server.base_url, api_key="sk-made-up", **more)


def graded(server: FakeJudge, descriptions: Any, **more: Any) -> Any:
    return complexity(descriptions, judge_of(server), progress=False, **more)


def test_the_examples_grade_phrases_of_one_kind_alike() -> None:
    assert Counter(grade for _, grade in EXAMPLES) == dict.fromkeys(range(6), 2)
    kinds = {
        "names of": 2,
        "prepositions": 2,
        "texts about": 3,
        "reports of": 3,
        "forms of": 1,
        "spellings of": 1,
        "the string": 0,
    }
    assert all(
        grade == next((g for kind, g in kinds.items() if text.startswith(kind)), grade) for text, grade in EXAMPLES
    )
    assert [f"\n{grade} for " in TASK for grade in range(6)] == [True] * 6


def test_descriptions_are_graded_by_the_number_where_there_are_no_probabilities(server: FakeJudge) -> None:
    some = [Description(1, "the word 'sun'"), Description(1, "irony", "other"), Description(2, "x", rules=(("names of animals", 5), ("irony", 2), ("never", 0)))]  # fmt: skip
    frame = graded(server, some)
    assert frame["complexity"].tolist() == [0, 5, 3.5] and frame["n_rules"].tolist() == [0, 0, 2]
    assert frame["complexity_low"].isna().all(), "one answer does not tell how sure the judge is"
    assert frame["graded"].tolist() == [1, 1, 2] and frame["failed"].sum() == 0 and frame["reason"].isna().all()
    assert server.requests == 3 == estimate(some, judge_of(server)).calls, "equal texts are graded once"
    assert frame["origin"].tolist()[1] == "other" and frame["index"].tolist() == [1, 1, 2]


def test_a_server_that_gives_no_probabilities_is_asked_without(server: FakeJudge) -> None:
    server.unsupported = ("logprobs", "top_logprobs")
    assert graded(server, {0: "irony"})["complexity"].tolist() == [5]
    assert "logprobs" in server.bodies[0] and "logprobs" not in server.bodies[-1]


def told(**chances: float) -> Answer:
    tokens = {key.removeprefix("_"): p for key, p in chances.items()}
    return Answer(max(tokens, key=lambda t: tokens[t]), top_logprobs=[(t, math.log(p)) for t, p in tokens.items()])


def test_the_grade_is_the_mean_of_the_digits_at_the_first_token() -> None:
    found = grade_in(told(_3=0.6, _4=0.2, the=0.2))
    assert found is not None and found.told and found.chances @ np.arange(6) == pytest.approx(3.25)
    spaced = grade_in(Answer(" 2", top_logprobs=[(" 2", math.log(0.5)), ("2", math.log(0.3)), ("▁1", math.log(0.2))]))
    assert spaced is not None and spaced.chances[2] == pytest.approx(0.8)
    labelled = grade_in(Answer("Grade: 4", top_logprobs=[("Grade", -0.01), ("4", -5.0)]))
    assert labelled is not None and not labelled.told and labelled.chances[4] == 1, "the digit stands elsewhere"


@pytest.mark.parametrize(("words", "grade"), [("4", 4), ("4.", 4), ("**4**", 4), ('{"grade": 4}', 4), ("4/5", 4), ("The complexity is 4", 4), ("4 - a topic", 4), ("4.0", 4), ("0", 0)])  # fmt: skip
def test_a_number_is_read_in_the_forms_that_judges_give_it(words: str, grade: int) -> None:
    found = grade_in(Answer(words))
    assert found is not None and found.chances[grade] == 1


@pytest.mark.parametrize("words", ["", "7", "45", "3.7", "-", "It is hard to say; perhaps 3", "2nd grade", "-1e9"])
def test_other_words_are_no_grade(words: str) -> None:
    assert grade_in(Answer(words)) is None


def test_the_interval_is_the_judges_own_doubt_over_rules_and_over_repeats(server: FakeJudge) -> None:
    class Unsure:
        name = "unsure"

        async def ask(self, request: Any) -> Answer:
            return told(_2=0.5, _4=0.5)

    with Judge(Unsure()) as judge:
        frame: Any = complexity(
            [Description(0, "a"), Description(1, "b", rules=(("b", 5), ("c", 5)))], judge, progress=False
        )
    assert frame["complexity"].tolist() == [3, 3]
    assert frame[["complexity_low", "complexity_high"]].to_numpy().tolist() == [[2, 4], [2, 4]]
    rng = np.random.default_rng(0)
    sums = rng.choice([2, 4], (4000, 12)).mean(axis=1)
    with Judge(Unsure()) as judge:
        many: Any = complexity(
            [Description(1, "b", rules=tuple((f"rule {n}", 5) for n in range(12)))], judge, progress=False
        )
    limits = np.quantile(sums, [0.025, 0.975])
    assert np.allclose(many[["complexity_low", "complexity_high"]].to_numpy()[0], limits, atol=0.17), "as drawn"
    answers = iter("3344" * 5)
    server.says = lambda body: next(answers)
    frame = graded(server, {0: "a"}, repeats=20)
    assert frame["complexity"][0] == 3.5 and (frame["complexity_low"][0], frame["complexity_high"][0]) == (3, 4)
    assert server.bodies[0]["temperature"] == 1 and server.requests == 20


def test_what_has_no_grade_is_counted_with_its_reason(server: FakeJudge) -> None:
    server.says = lambda body: "A fine description!" if "prose" in body["messages"][-1]["content"] else "2"
    long = "word " * 1000
    some = [Description(0, "prose"), Description(1, "x", rules=(("good", 5), ("prose", 5))), Description(3, long), Description(4, "y", rules=(("z", 0),))]  # fmt: skip
    base = made_up_result()
    results = Results(tuple(replace(base, description=d) for d in [*some, Description(5, " ")]))
    frame = graded(server, results)
    assert frame["complexity"].fillna(-1).tolist() == [-1, 2, 2, -1, -1]
    assert frame["failed"].tolist() == [1, 1, 0, 0, 1] and frame["graded"].tolist() == [0, 1, 1, 0, 0]
    assert "nothing readable" in frame["reason"][0] and "nothing readable" in frame["reason"][1]
    assert frame["reason"][3] == "every rule has strength 0" and frame["reason"][4] == "the description is empty"
    assert max(len(body["messages"][-1]["content"]) for body in server.bodies) < 2200


def test_answers_are_kept_and_nothing_is_asked_twice(server: FakeJudge, tmp_path: Any) -> None:
    first = graded(server, {0: "irony", 1: "names of animals"}, store=tmp_path / "run")
    assert server.requests == 2
    again = graded(server, {0: "irony", 1: "names of animals"}, store=tmp_path / "run")
    assert server.requests == 2 and again.equals(first)
    stopped = Judge("m", base_url=server.base_url, api_key="sk-made-up", max_calls=1, concurrency=1)
    with pytest.raises(JudgeError):
        complexity({2: "a", 3: "b", 4: "c"}, stopped, store=tmp_path / "run", progress=False)
    graded(server, {2: "a", 3: "b", 4: "c"}, store=tmp_path / "run")
    assert server.requests == 5


def test_what_cannot_be_used_is_told(server: FakeJudge) -> None:
    with pytest.raises(InputError, match="repeats is 0; give a number from 1 to 100"):
        graded(server, {0: "a"}, repeats=0)
    with pytest.raises(InputError):
        graded(server, [])
    assert server.requests == 0
    made = Explanations.of({0: "irony"})
    assert graded(server, made)["complexity"].tolist() == [5]
