"""Parsing of answers: every tolerated form, and what must never come out of any."""

import importlib.util
import json
import random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fade_lens.judge import parsing
from fade_lens.judge.parsing import parse_ratings, parse_texts


def unhooked() -> ModuleType:
    """The parser without the run-time type checks of the test run, which would take most of the fuzz test's time."""
    spec = importlib.util.spec_from_file_location("parsing_unhooked", parsing.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


IDS = ["482", "193", "204"]
WANTED = {"482": 2, "193": 0, "204": 1}
PLAIN = json.dumps({"ratings": [{"id": name, "rating": value} for name, value in WANTED.items()]})


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN,
        json.dumps(json.loads(PLAIN), indent=2),
        f"```json\n{PLAIN}\n```",
        f"```\n{PLAIN}",
        f"Here are [my] ratings: {PLAIN} I hope this {{helps}}.",
        str(json.loads(PLAIN)),
        PLAIN.replace("}]}", "},]}"),
        PLAIN.replace("}]}", "},],}"),
        '{"482": 2, "193": 0, "204": 1}',
        "{482: 2, 193: 0, 204: 1}",
        "{'482': '2', '193': 0.0, '204': '1.0'}",
        '[{"id": 204, "rating": 1}, {"id": 482, "rating": "2"}, {"id": 193, "rating": 0.0}]',
        '[["482", 2], ["193", 0], ["204", 1]]',
        "[(482, 2), (193, 0), (204, 1)]",
        '{"ratings": {"482": 2, "193": 0, "204": 1}}',
        '{"482": {"rating": 2}, "193": {"rating": 0}, "204": {"rating": 1, "why": "arguable"}}',
        '{"results": [{"ID": "sample 482", "Rating": 2}, {"ID": "#193", "Rating": 0}, {"ID": "204", "Rating": 1}]}',
        '{"id": "482", "rating": 2}\n{"id": "193", "rating": 0}\n{"id": "204", "rating": 1}',
        "482: 2\n193: 0\n204: 1",
        "482: 2, 193: 0, 204: 1",
        "- **482**: 2\n- **193**: 0\n- **204**: 1\n",
        "482 -> 2\n193 -> 0\n204 -> 1.",
        "The rating for 482 is 2\nfor 193 is 0\nand 204 is 1.",
        "| 482 | 2 |\n| 193 | 0 |\n| 204 | 1 |",
        f"<think>482: 0? {{'193': 2}} no.</think>\n{PLAIN}",
        f"482: 0 perhaps, and 193: 2</think>{PLAIN}",
        f"{PLAIN[:-1]}",
        PLAIN.replace(", ", ",\n\n"),
        '{"ratings": [{"id": "482", "rating": 2, "note": "he said \\"193\\": 2, {"}, {"id": "193", "rating": 0}, {"id": "204", "rating": 1}]}',
    ],
)
def test_every_tolerated_form(answer: str) -> None:
    assert parse_ratings(answer, IDS) == WANTED


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("", {}),
        ("I cannot help with that.", {}),
        ("null", {}),
        ("{}", {}),
        ('{"482": 3, "193": -1, "204": 1.5}', {}),
        ('{"482": true, "193": null, "204": "two"}', {}),
        ('{"482": [2], "193": 20, "204": 1}', {"204": 1}),
        ("482: 3\n193: 10\n204: 1", {"204": 1}),
        ('{"482": 2, "999": 2, "1": 1}', {"482": 2}),
        ('{"482": 2, "482": 0, "193": 1, "193": 1}', {"193": 1}),
        ('[{"id": 482, "rating": 2}, {"id": 482, "rating": 1}, {"id": 193}]', {}),
        ("1482: 2\n4.82: 1\n-193: 1\n204.5: 2", {}),
        ("482, 193, 204", {}),
        ('{"482": 1e0, "193": NaN, "204": Infinity}', {"482": 1}),
    ],
)
def test_nothing_is_guessed(answer: str, wanted: dict[str, int]) -> None:
    assert parse_ratings(answer, IDS) == wanted


def test_a_cut_answer_gives_its_complete_part() -> None:
    for end in range(len(PLAIN)):
        found = parse_ratings(PLAIN[:end], IDS)
        assert found.items() <= WANTED.items()
        complete = {name for name in IDS if f'"id": "{name}", "rating": {WANTED[name]}}}' in PLAIN[:end]}
        assert complete <= set(found)


def test_a_rating_at_the_cut_is_not_taken() -> None:
    assert parse_ratings('{"482": 2, "193": 1', IDS) == {"482": 2}  # it may have been going to be 10


def mutated(answer: str, pieces: list[str], rng: random.Random) -> str:
    """The answer after a few changes by chance."""
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(answer) + 1)
        change = rng.randrange(4)
        if change == 0:
            answer = answer[:at] + rng.choice(pieces) + answer[at:]
        elif change == 1:
            answer = answer[:at] + answer[at + rng.randrange(1, 9) :]
        elif change == 2:
            answer = answer[: max(at, 1)]
        else:
            answer = answer[:at] + answer[rng.randrange(len(answer) + 1) :] + answer[:at]
    return answer


def test_ten_thousand_mutated_answers() -> None:
    rng = random.Random(0)
    pieces = [
        '"',
        "'",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\\",
        "```",
        "<think>",
        "</think>",
        "3",
        "-1",
        "999",
        "\x00",
        "é",
        "482",
        "true",
        "\n",
        "1e400",
        "((",
        "#",
    ]
    ids = [str(number) for number in rng.sample(range(100, 1000), 12)]
    plain = unhooked()
    fed = 0
    for _ in range(10_000):
        ratings = {name: rng.choice([0, 1, 2, 2.0, "1", 3, None]) for name in ids}
        answer = rng.choice(
            [
                json.dumps(ratings),
                str(ratings),
                json.dumps({"ratings": [{"id": name, "rating": value} for name, value in ratings.items()]}),
                "\n".join(f"{name}: {value}" for name, value in ratings.items()),
            ]
        )
        answer = mutated(answer, pieces, rng)
        asked = rng.sample(ids, 6)
        found = plain.parse_ratings(answer, asked)
        assert set(found) <= set(asked)
        assert all(type(value) is int and value in (0, 1, 2) for value in found.values())
        fed += bool(found)
        assert all(isinstance(text, str) and text.strip() for text in plain.parse_texts(answer).texts)
    assert fed > 3000  # the parser still finds much in them


@settings(max_examples=300, deadline=None)
@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(IDS),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(max_size=6) | st.sampled_from(["id", "rating", *IDS]), inner, max_size=4)
        ),
    ).map(lambda value: json.dumps(value))
)
def test_any_text_at_all(answer: str) -> None:
    found = parse_ratings(answer, IDS)
    assert set(found) <= set(IDS)
    assert all(type(value) is int and value in (0, 1, 2) for value in found.values())
    parse_texts(answer)


@pytest.mark.parametrize(
    "answer",
    ["[" * 100_000, '{"a":' * 20_000, "['" * 30_000, '{"482": "' + "\\" * 100_000, "482:" * 30_000, "<think>" * 20_000],
)
def test_hostile_answers_come_to_an_end(answer: str) -> None:
    assert set(parse_ratings(answer, IDS)) <= set(IDS)
    parse_texts(answer)


TEXTS = ["A cat sat.", 'He said "no", twice.', "Zwei\nZeilen", "it's, here"]


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps({"texts": TEXTS}),
        json.dumps(TEXTS),
        json.dumps({"texts": TEXTS}, indent=1, ensure_ascii=False),
        f"Sure:\n```json\n{json.dumps(TEXTS)}\n```\nAnything else?",
        str({"texts": TEXTS}),
        json.dumps(TEXTS)[:-1] + ",]",
        json.dumps({"samples": [{"id": at, "text": text} for at, text in enumerate(TEXTS)]}),
        json.dumps({str(at): text for at, text in enumerate(TEXTS)}),
        f"<think>['not', 'these']</think>{json.dumps(TEXTS)}",
        json.dumps({"texts": TEXTS}).replace("\\n", "\n"),
    ],
)
def test_forms_of_written_texts(answer: str) -> None:
    assert parse_texts(answer) == (TEXTS, True)


def test_a_cut_list_of_texts() -> None:
    plain = json.dumps({"texts": TEXTS})
    for end in range(len(plain)):
        texts, complete = parse_texts(plain[:end])
        assert not complete
        assert texts == TEXTS[: len(texts)]
    assert parse_texts(plain[:-2]).texts == TEXTS[:-1]


def test_lines_are_the_last_resort() -> None:
    assert parse_texts('Here:\n1. First one.\n2) "Second one."\n- third\nBye') == (
        ["First one.", "Second one.", "third"],
        False,
    )
    assert parse_texts("I would rather not.") == ([], False)
