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
        "“",
        "”",
        "「",
        "：",
        "｛",
        "＂",
        "<|channel|>",
        "assistantfinal",
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


SIGNS = [*"\"'{}[],:\\-.é\n#“”「：｛＂", "```", "true", "((", " rating ", "id", "null"]


def rated_by_chance(rng: random.Random) -> tuple[dict[str, int], str]:
    """What six texts are rated, and an answer in one of the usual forms that says so, with some values that are no ratings."""
    values = {str(name): rng.choice([0, 1, 2, 2.0, "1", 3, None]) for name in rng.sample(range(100, 1000), 6)}
    entries = [{"id": name, "rating": value} for name, value in values.items()]
    turned = [{"rating": value, "id": name} for name, value in values.items()]
    lines = "\n".join(f"{name}: {value}" for name, value in values.items())
    forms = [json.dumps(values), str(values), lines, *(json.dumps({"ratings": one}) for one in (entries, turned))]
    given = {name: int(float(value)) for name, value in values.items() if value not in (3, None)}
    return given, rng.choice([*forms, str({"ratings": entries})])


def damaged(answer: str, rng: random.Random) -> str:
    """The answer with signs put in, signs left out, or its end cut off; no digit is changed and no two numbers become one."""
    for _ in range(rng.randrange(1, 5)):
        at, change = rng.randrange(len(answer) + 1), rng.randrange(3)
        end = at + rng.randrange(9)
        left_out, around = answer[at:end], answer[max(at - 1, 0) : at] + answer[end : end + 1]
        if change == 0:
            answer = answer[:at] + rng.choice(SIGNS) + answer[at:]
        elif change == 1 and not any(map(str.isdigit, left_out)) and not around.isdigit():
            answer = answer[:at] + answer[end:]
        elif change == 2 and rng.random() < 0.3:
            answer = answer[: max(at, 1)]
    return answer


def test_a_damaged_answer_gives_no_rating_that_the_whole_one_does_not_give() -> None:
    rng, read = random.Random(0), unhooked().parse_ratings
    wrong = right = 0
    for _ in range(6000):
        given, answer = rated_by_chance(rng)
        names = [*given, *(str(name) for name in range(100, 110))]
        found = read(damaged(answer, rng), names)
        wrong += len(found.items() - given.items())
        right += len(found.items() & given.items())
    assert wrong <= 1 and right > 19_000, (
        wrong,
        right,
    )  # an id that lost all marks between two ratings; 25,700 are given


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
    [
        "[" * 100_000,
        '{"a":' * 20_000,
        "['" * 30_000,
        '{"482": "' + "\\" * 100_000,
        "482:" * 30_000,
        "<think>" * 20_000,
        "“" * 100_000,
        "｛「" * 30_000,
        "“a”：" * 30_000,
        "Final answer: " * 20_000,
        "analysisX" + "assistantfinal" * 20_000,
        "<|channel|>" * 20_000,
        "final <" * 30_000,
        "[" * 900 + "]" * 900,
        '{"texts":' * 900 + '["a"]' + "}" * 900,
        ("[" + "1," * 400) * 120,
    ],
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


WIDE = str.maketrans(
    {
        "{": "｛",
        "}": "｝",
        "[": "［",
        "]": "］",
        ":": "：",
        ",": "，",
        "“": "“",
        **dict(zip("0123456789", "０１２３４５６７８９", strict=True)),
    }
)


def respelled(value: object, quotes: str, wide: bool) -> str:
    """JSON in other signs: what stands within strings stays as it is."""
    if isinstance(value, str):
        return quotes[0] + value + quotes[1]
    if isinstance(value, int):
        return str(value).translate(WIDE) if wide else str(value)
    open_, close, colon, comma = "｛｝：，" if wide else "{}:,"
    if isinstance(value, list):
        open_, close = "［］" if wide else "[]"
        return open_ + comma.join(respelled(inner, quotes, wide) for inner in value) + close
    assert isinstance(value, dict)
    fields = (f"{respelled(key, quotes, wide)}{colon} {respelled(inner, quotes, wide)}" for key, inner in value.items())
    return open_ + f"{comma} ".join(fields) + close


KEPT = [
    "It’s here, and “there”, too: {so}",
    "彼は「はい」と言った。１，２",
    "Er sagte: »nein«; dann […]",
    "a，b：c｛d｝",
]


@pytest.mark.parametrize("quotes", ['""', "“”", "„“", "““", "””", "＂＂", "「」", "『』", "«»", '“"'])
@pytest.mark.parametrize("wide", [False, True])
def test_json_in_curly_and_full_width_signs(quotes: str, wide: bool) -> None:
    if '"' in quotes or quotes == "„“":
        quotes = quotes.replace("„“", "„”")
    assert parse_ratings(respelled(json.loads(PLAIN), quotes, wide), IDS) == WANTED
    assert parse_ratings("好的：" + respelled(WANTED, quotes, wide) + "。", IDS) == WANTED
    assert parse_texts(respelled({"texts": KEPT}, quotes, wide)) == (KEPT, True)
    assert parse_texts(f"```json\n{respelled(KEPT, quotes, wide)}\n```") == (KEPT, True)
    cut = respelled({"texts": KEPT}, quotes, wide)[:-3]
    assert parse_texts(cut).texts in (KEPT[:3], KEPT[:2]) and not parse_texts(cut).complete


def test_lines_in_full_width_signs() -> None:
    assert parse_ratings("４８２：２\n１９３：０\n２０４：１", IDS) == WANTED


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("<think>", "</think>"),
        ("", "</think>"),
        ("<Thinking>\n", "\n</Thinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning effort='low'>", "</reasoning>"),
        ("<seed:think>", "</seed:think>"),
        ("<|begin_of_thought|>", "<|end_of_thought|><|begin_of_solution|>"),
        ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|channel>thought\n", "<channel|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("<|start|>assistant<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("analysisThe user", "assistantfinal"),
        ("Here is my thought process:", "Here is my response:\n"),
    ],
)
def test_thoughts_of_every_make_are_left_out_wherever_they_are_cut(begin: str, end: str) -> None:
    thought = (
        f'{begin} Perhaps {{"482": 0, "193": 2}} or {{"texts": ["No, no.", "Not this."]}}\n1. Nor this.\n482: 0 {end}'
    )
    assert parse_ratings(thought + PLAIN, IDS) == WANTED
    assert parse_texts(thought + json.dumps(TEXTS)) == (TEXTS, True)
    assert parse_texts(f"{thought}1. One.\n2. Two.").texts == ["One.", "Two."]
    for at in range(len(begin), len(thought) - len(end)) if begin else ():
        assert parse_ratings(thought[:at], IDS) == {} and parse_texts(thought[:at]).texts == []


@pytest.mark.parametrize(
    "said", ["Final answer: ", "**Final version:**\n```json\n", "<answer>", "Here is the final list:\n"]
)
def test_of_drafts_the_last_one_counts(said: str) -> None:
    draft = json.dumps({"texts": ["Draft.", "Another.", "Third.", "Fourth."]})
    assert parse_texts(f"{draft}\n\n{said}{json.dumps({'texts': TEXTS})}").texts == TEXTS
    assert parse_ratings(f"{PLAIN.replace('2}', '1}')}\n{said}{PLAIN}", IDS) == WANTED


def test_a_text_about_tags_and_channels_stays_whole() -> None:
    texts = ["Use <think> and </think>.", "<answer>[1]</answer>", "<|channel|>final<|message|>x", "Final answer: [2]"]
    assert parse_texts(json.dumps({"texts": texts})) == (texts, True)


def test_what_is_cut_in_prose_is_not_read() -> None:
    thought = 'Okay, so {"482": 2} might do. Let me think again about the second'
    assert parsing.readable(thought, cut=True, thinks=False) == ""
    assert parsing.readable(thought, cut=False, thinks=False) == thought
    begun = 'Sure! {"482": 2, "193": 0, "2'
    assert parsing.readable(begun, cut=True, thinks=False) == begun
    assert parsing.readable(begun, cut=True, thinks=True) == ""
    for plain in (PLAIN[:-9], f"```json\n{PLAIN[:-9]}", "482: 2\n193: 0\n20"):
        assert parsing.readable(plain, cut=True, thinks=True) == plain


RATED = '{"ratings": [{"id": 101, "rating": 0}, {"id": 202, "rating": 1}]}'
IDEA = '{"ratings": [{"id": 101, "rating": 2}, {"id": 202, "rating": 2}]}'


@pytest.mark.parametrize(
    "answer",
    [
        f"<inner_thought>{IDEA}</inner_thought>{RATED}",
        f"<unused94>thought\n{IDEA}<unused95>{RATED}",
        f"Here are my reasoning steps:\n{IDEA}\n[BEGIN FINAL RESPONSE]\n{RATED}\n[END FINAL RESPONSE]",
        f"<seed:think>x<seed:cot_budget_reflect>used</seed:cot_budget_reflect>{IDEA}</seed:think>{RATED}",
        json.dumps(RATED),
        json.dumps({"name": "ratings", "arguments": RATED}),
        '{"ratings": [{"id": 101, "rating": "0 (not expressed)"}, {"id": 202, "rating": "1 - partly"}]}',
        "ratings:\n  - id: 101\n    rating: 0\n  - id: 202\n    rating: 1\n",
        "Sample 101: Rating 0\nSample 202: Rating 1",
        "101: 0/2\n202: 1/2",
        "101 (0)\n202 (1)",
    ],
)
def test_ratings_in_other_markups_and_spellings(answer: str) -> None:
    assert parse_ratings(answer, ["101", "202"]) == {"101": 0, "202": 1}


WRITTEN = ["The sun rose.", 'She said "sun".', "Noon, at last."]


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(json.dumps({"texts": WRITTEN})),
        json.dumps({"answer": json.dumps({"texts": WRITTEN})}),
        "\n".join(json.dumps({"id": at, "text": text}) for at, text in enumerate(WRITTEN)),
        '{"texts": ["The sun rose.", // it\'s one\n"She said \\"sun\\".", /* two */ "Noon, at last."]}',
        "\n".join(f"**{at}.** {text}" for at, text in enumerate(WRITTEN, 1)),
        "\n".join(f"Text {at}: {text}" for at, text in enumerate(WRITTEN, 1)),
        "\n".join(f"{at}、{text}" for at, text in enumerate(WRITTEN, 1)),
        "\n".join(f"{number} {text}" for number, text in zip("①②③", WRITTEN, strict=True)),
    ],
)
def test_texts_in_other_markups_and_spellings(answer: str) -> None:
    assert parse_texts(answer).texts == WRITTEN


def test_no_piece_of_a_text_is_taken_for_a_text() -> None:
    assert parse_texts('{"texts": ["One.", "She said "sun" twice.", "Two."]}').texts == ["One.", "Two."]
    assert not parse_texts("texts:\n  - |\n    One.\n  - >-\n    Two.\n").texts
    assert parse_texts(json.dumps({"texts": ['{"a": 1}', "[2]"]})).texts == ['{"a": 1}', "[2]"]
    assert parse_ratings('{"101": "1-2", "202": "0 or 1"}', ["101", "202"]) == {}


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (
            '{"concept": "cats", "rules": [{"text": "a", "strength": 1.0}]}',
            {"concept": "cats", "rules": [{"text": "a", "strength": 1.0}]},
        ),
        ('Sure [1]:\n```json\n{"concept": "dogs"}\n{"concept": "cats",}\n```', {"concept": "cats"}),
        ("{'concept': \"it's\", 'sure': True}", {"concept": "it's", "sure": True}),
        ("{“concept”: “cats”, “sure”：2}", {"concept": "cats", "sure": 2}),
        ('{"concept": "a \\"cat\\"", "why": "they all', {"concept": 'a "cat"'}),
        ('<think>{"concept": "dogs"}</think>Cats.', None),
        ("[1, 2]", None),
        ("", None),
    ],
)
def test_fields_of_a_free_answer(answer: str, fields: dict[str, object] | None) -> None:
    assert parsing.parse_fields(answer) == fields
