"""`patchscopes` as an explainer: the subject's own answers, of which the judge says which one holds; base models are told at once."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fade_lens import Fade, InputError, Subject
from fade_lens.generation import patchscopes
from fade_lens.generation.patchscopes import Answer
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, judge_of, natural_texts, planted_model, planted_sae, rule, writer

TEXTS = natural_texts(900)
EXCERPT = re.compile(r"<excerpt (\d+)>\n(.*?)\n</excerpt", re.S)
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}\n"


def last_rule_holds(body: dict[str, Any]) -> str | None:
    """Of all rules the last one holds, for texts with an animal."""
    if not body["messages"][0]["content"].startswith("You are given numbered rules"):
        return None
    said = body["messages"][-1]["content"]
    n = len(said.split("</rules>")[0].splitlines()) - 1
    animals = set(CLASSES[0])
    rows = [
        {"id": int(i), "rules": [n] if animals & set(re.findall(r"\w+", text)) else []}
        for i, text in EXCERPT.findall(said)
    ]
    return json.dumps({"excerpts": rows})


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=rule, writer=writer, says=last_rule_holds) as running:
        yield running


def instructed() -> Any:
    """The planted model with a chat template."""
    model: Any = planted_model()
    model.tokenizer.chat_template = TEMPLATE
    return model


def said_of(*texts: tuple[str, float, float]) -> Any:
    """Answers in place of the model's: each text with its relevancy and that of the random direction's."""
    own = tuple(Answer(1.0, text, 0.0, 0.0, mine) for text, mine, _ in texts)
    null = tuple(Answer(1.0, "random words", 0.0, 0.0, other) for *_, other in texts)
    return lambda model, about, rows, *_, **__: [(own, null)] * len(rows)


def test_the_judge_chooses_among_the_answers_by_texts_that_are_kept_for_that(
    server: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = said_of(
        ("seven", 0.5, 0.2), ("less than by chance", 0.4, 0.45), ("pets", 0.3, 0.2), ("pets", 0.25, 0.2), ("", 0.9, 0.1)
    )
    monkeypatch.setattr(patchscopes, "answers", said)
    fade = Fade(instructed(), planted_sae(), corpus=TEXTS, judge=judge_of(server))
    assert fade.estimate([0], explainer="patchscopes", scorers=()).calls == 1
    made = fade.explain([0, 3], explainer="patchscopes", progress=False)
    asked = server.bodies[0]["messages"][-1]["content"]
    rules = [json.loads(line.split(" ", 1)[1]) for line in asked.split("</rules>")[0].splitlines()[1:]]
    assert rules == ["seven", "pets"] and len(EXCERPT.findall(asked)) == 24 and server.requests == 1
    assert made[0].description is not None and made[0].description.text == "pets"
    assert made[0].search == {"candidates": 2.0, "select": 1.0}
    assert made[3].reason is not None and made[3].reason.code == "silent"


def test_one_answer_needs_no_choice_and_none_is_a_reason(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    for said, text in ((said_of(("pets", 0.3, 0.2)), "pets"), (said_of(("pets", 0.1, 0.2)), None)):
        monkeypatch.setattr(patchscopes, "answers", said)
        made = Fade(instructed(), planted_sae(), corpus=TEXTS, judge=judge_of(server)).explain(
            [0], explainer="patchscopes", progress=False
        )[0]
        assert (made.description and made.description.text) == text
        assert text is not None or (made.reason is not None and made.reason.code == "nothing_common")
    assert server.requests == 0


def test_the_model_is_asked_about_the_latents_own_directions(server: FakeJudge) -> None:
    made = Fade(instructed(), planted_sae(), corpus=TEXTS, judge=judge_of(server), patch_tokens=2).explain(
        [0, 1], explainer="patchscopes", progress=False
    )
    assert all((row.description is None) != (row.reason is None) for row in made.rows)


def test_a_base_model_is_told_before_the_corpus_is_read(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subject, "observe", lambda *_, **__: pytest.fail("the corpus is read"))
    with pytest.raises(InputError, match="no chat template"):
        Fade(planted_model(), planted_sae(), corpus=TEXTS, judge=judge_of(server)).explain([0], explainer="patchscopes")
    with pytest.raises(InputError, match="layer is 5"):
        Fade(instructed(), planted_sae(), corpus=TEXTS, judge=judge_of(server), patch_layer=5).explain(
            [0], explainer="patchscopes"
        )
    assert server.requests == 0
