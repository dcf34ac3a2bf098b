"""`patchscopes` as an explainer: the subject's own answers, of which the judge says which one holds; base models are told at once."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fade_lens import Fade, InputError, Subject
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
    """The planted model with a second block that mixes, and a chat template; it answers in words of no sense."""
    model: Any = planted_model()
    with torch.no_grad():
        model.unembed.W_U += torch.randn(model.unembed.W_U.shape, generator=torch.Generator().manual_seed(0))
    model.tokenizer.chat_template = TEMPLATE
    return model


def test_the_judge_chooses_among_the_answers_by_texts_that_are_kept_for_that(server: FakeJudge) -> None:
    fade = Fade(instructed(), planted_sae(), corpus=TEXTS, judge=judge_of(server), patch_tokens=3)
    assert fade.estimate([0], explainer="patchscopes", scorers=()).calls == 1
    made = fade.explain([0, 3], explainer="patchscopes", progress=False)
    said = server.bodies[0]["messages"][-1]["content"]
    rules = [json.loads(line.split(" ", 1)[1]) for line in said.split("</rules>")[0].splitlines()[1:]]
    assert len(rules) >= 2 and len(EXCERPT.findall(said)) == 24 and server.requests == 1
    assert made[0].description is not None and made[0].description.text == rules[-1]
    assert made[0].search == {"candidates": float(len(rules)), "select": 1.0}
    assert made[3].reason is not None and made[3].reason.code == "silent"


def test_a_base_model_is_told_before_the_corpus_is_read(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subject, "observe", lambda *_, **__: pytest.fail("the corpus is read"))
    with pytest.raises(InputError, match="no chat template"):
        Fade(planted_model(), planted_sae(), corpus=TEXTS, judge=judge_of(server)).explain([0], explainer="patchscopes")
    with pytest.raises(InputError, match="layer is 5"):
        Fade(instructed(), planted_sae(), corpus=TEXTS, judge=judge_of(server), patch_layer=5).explain(
            [0], explainer="patchscopes"
        )
    assert server.requests == 0
