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


def said_of(*texts: tuple[str, float, bool]) -> Any:
    """Answers in place of the model's: each text with its score and whether it is kept."""
    own = tuple(Answer(1.0, text, 0.0, 0.0, 0.0, score, kept) for text, score, kept in texts)
    return lambda model, about, rows, *_, **__: ([own] * len(rows), [])


def test_the_judge_chooses_among_the_answers_by_texts_that_are_kept_for_that(
    server: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = said_of(("Pets", 4.0, True), ("seven", 9.0, True), ("as by chance", 8.0, False), ("pets", 5.0, True))
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
    for kept, text in ((True, "pets"), (False, None)):
        monkeypatch.setattr(patchscopes, "answers", said_of(("pets", 5.0, kept)))
        made = Fade(instructed(), planted_sae(), corpus=TEXTS, judge=judge_of(server)).explain(
            [0], explainer="patchscopes", progress=False
        )[0]
        assert (made.description and made.description.text) == text
        assert text is not None or (made.reason is not None and made.reason.code == "nothing_said")
    assert server.requests == 0


def test_a_latent_without_a_direction_is_left_out_and_the_others_are_asked_about(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(patchscopes, "answers", said_of(("pets", 5.0, True)))
    sae: Any = planted_sae()
    sae.W_dec.data[1] = 0
    made = Fade(instructed(), sae, corpus=TEXTS, judge=judge_of(server)).explain([0, 1], explainer="patchscopes", progress=False)  # fmt: skip
    assert made[0].description is not None and made[1].reason is not None and made[1].reason.code == "no_direction"


def test_the_model_is_asked_about_the_latents_own_directions(server: FakeJudge) -> None:
    made = Fade(instructed(), planted_sae(), corpus=TEXTS, judge=judge_of(server), patch_tokens=2).explain(
        [0, 1], explainer="patchscopes", progress=False
    )
    assert all((row.description is None) != (row.reason is None) for row in made.rows)


def test_what_cannot_be_asked_is_told_by_the_names_of_settings_before_the_corpus_is_read(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    for name in ("observe", "observe_each"):
        monkeypatch.setattr(Subject, name, lambda *_, **__: pytest.fail("the corpus is read"))
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (planted_model(), {}, "no chat template.*or give patch_ask and patch_answer in words"),
        (instructed(), {"patch_layer": 5}, "patch_layer is 5"),
        (instructed(), {"patch_scales": (1.0, -1.0)}, r"patch_scales\[1\] is -1.0; it must be above 0"),
        (instructed(), {"patch_scales": ()}, "patch_scales are none"),
        (instructed(), {"patch_tokens": 999}, "patch_tokens is 999"),
        (instructed(), {"patch_ask": "what?", "patch_answer": "this"}, "patch_ask has no {x}"),
    ]
    for model, settings, words in cases:
        with pytest.raises(InputError, match=words):
            Fade(model, planted_sae(), corpus=TEXTS, judge=judge_of(server), **settings).explain([0], explainer="patchscopes")  # fmt: skip
    assert server.requests == 0


def test_a_base_model_is_asked_in_words_that_it_continues(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def answers(model: Any, about: Any, rows: Any, *_: Any, **__: Any) -> Any:
        seen.append(model.tokenizer.decode(about.tokens))
        return [(Answer(1.0, "pets", 0.0, 0.0, 0.0, 5.0, kept=True),)] * len(rows), []

    monkeypatch.setattr(patchscopes, "answers", answers)
    words: dict[str, Any] = {"patch_ask": "the cat sees {x}", "patch_answer": "the {x} runs"}
    fade = Fade(planted_model(), planted_sae(), corpus=TEXTS, judge=judge_of(server), **words)
    made = fade.explain([0], explainer="patchscopes", progress=False)[0]
    assert made.description is not None and "the cat sees <unk> the <unk> runs" in " ".join(seen)
