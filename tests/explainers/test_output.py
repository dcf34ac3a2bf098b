"""`output`: features described by the tokens that they promote, by the logit lens and by steering."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fade_lens import Fade
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(300)
LEADS = ("the unit promotes most", "become likelier when the unit is switched on by force")


def tokens(said: str, what: str) -> list[str]:
    found = re.search(rf"Tokens that {what}: (.*)", said)
    return json.loads(f"[{found[1]}]") if found else []


def names_promoted(body: dict[str, Any]) -> str | None:
    """The class of the six strongest tokens of any list of promoted ones."""
    if (
        body["messages"][0]["content"].startswith(("Write", "You rate", "You judge"))
        or "unit" not in body["messages"][0]["content"]
    ):
        return None
    lists = [tokens(body["messages"][-1]["content"], what)[:6] for what in LEADS]
    words = next((set(some) for some in lists if some), set())
    return json.dumps(
        {"description": next((TRUE[i] for i, members in CLASSES.items() if words and words <= set(members)), "")}
    )


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=rule, writer=writer, says=names_promoted) as running:
        yield running


def make(server: FakeJudge, **settings: Any) -> Fade:
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **settings)


def test_planted_latents_are_described_by_what_they_promote(server: FakeJudge) -> None:
    fade = make(server)
    made = fade.explain([0, 1, 2], explainer="output", progress=False)
    assert {d.index: d.text for d in made} == TRUE
    assert server.requests == 3 == fade.estimate([0, 1, 2], explainer="output", scorers=()).calls
    prompts = [body["messages"][-1]["content"] for body in server.bodies]  # in any order
    said = next(one for one in prompts if set(tokens(one, LEADS[0])[:6]) == set(CLASSES[0]))
    assert set(tokens(said, LEADS[1])[:6]) == set(CLASSES[0])
    assert "excerpt" not in said and made[0].shown == ()


def test_steering_alone_and_the_lens_alone_describe_as_well(server: FakeJudge) -> None:
    for settings, what in (({"shown_logits": 0}, LEADS[1]), ({"shown_logits": 6, "shown_changes": 1}, LEADS[0])):
        made = make(server, **settings).explain([0], explainer="output", progress=False)
        assert made[0].description is not None and made[0].description.text == TRUE[0]
        assert tokens(server.bodies[-1]["messages"][-1]["content"], what)


def test_a_latent_that_never_fires_is_described_by_the_lens(server: FakeJudge) -> None:
    made = make(server).explain([3], explainer="output", progress=False)
    said = server.bodies[0]["messages"][-1]["content"]
    assert tokens(said, LEADS[0]) and not tokens(said, LEADS[1])
    assert made[3].reason is None or made[3].reason.code == "nothing_common", "asked about all the same"
    none = make(server, shown_logits=0).explain([3], explainer="output", progress=False)
    assert none[3].reason is not None and none[3].reason.code == "no_tokens" and server.requests == 1


def test_one_shot_shows_both_sides(server: FakeJudge) -> None:
    make(server, shown_logits=3, shown_changes=4, least_texts=1).explain([0], progress=False)
    said = server.bodies[0]["messages"][-1]["content"]
    assert "<excerpt 1" in said and len(tokens(said, LEADS[0])) == 3 and len(tokens(said, LEADS[1])) == 4
