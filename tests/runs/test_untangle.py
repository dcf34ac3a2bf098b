"""`Fade.untangle` on planted collisions: latents of sub-classes of words, which an explainer that looks at each alone calls the same."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE

from fade_lens import Explanations, Fade, InputError, Results
from fade_lens.subject.subject import Subject
from tests.fake_judge import FakeJudge
from tests.planted import judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.tiny import ANIMALS, COLOURS

PETS, WILD = set(ANIMALS[:3]), set(ANIMALS[3:])
NAMES = {"pets": PETS, "wild animals": WILD, "animals": {*PETS, *WILD}, "colours": set(COLOURS)}
TEXTS = natural_texts(900)


def sub_classes() -> tuple[Any, SAE[Any]]:
    """Latents 0 and 4 fire on halves of the animals, 5 on all of them, 1 on colours."""
    model, sae = planted_model(), planted_sae()
    vocabulary: dict[str, int] = model.tokenizer.get_vocab()  # pyright: ignore[reportOptionalMemberAccess]
    with torch.no_grad():
        for word in PETS:
            model.embed.W_E[vocabulary[word], 30] = 4.0
        for word in WILD:
            model.embed.W_E[vocabulary[word], 31] = 4.0
        sae.W_enc[:, [0, 4, 5]] = 0.0
        for latent, direction in ((0, 30), (4, 31), (5, 0)):
            sae.W_enc[direction, latent] = 1.0
    return model, sae


MODEL, SAE_ = sub_classes()


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def by_rule(body: dict[str, Any]) -> str | None:
    """The broadest class that holds all marked words, and of the words of silent excerpts none."""
    messages = body["messages"]
    if not messages[0]["content"].startswith("You find out what one unit"):
        return None
    shown, _, silent = messages[-1]["content"].partition("In these the unit is silent:")
    marked = set(re.findall(r"<<(\w+)>>", shown))
    fits = [name for name, words in NAMES.items() if marked <= words and not words & words_of(silent)]
    return json.dumps({"description": max(fits, key=lambda name: len(NAMES[name]), default="")})


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=rule, writer=writer, says=by_rule) as running:
        yield running


def make(server: FakeJudge, **settings: Any) -> Fade:
    return Fade(MODEL, SAE_, corpus=TEXTS, judge=judge_of(server), **settings)


def texts(found: Explanations) -> dict[int, str]:
    return {d.index: d.text for d in found}


def test_latents_that_share_a_description_are_told_apart(server: FakeJudge, tmp_path: Path) -> None:
    fade = make(server)
    found = fade.explain([0, 1, 4], store=tmp_path, progress=False)
    assert texts(found) == {0: "animals", 1: "colours", 4: "animals"}
    assert found.frame["flags"].tolist() == ["collides: with 4", "", "collides: with 0"]
    assert found.collisions().indices == (0, 4)
    before = server.requests
    made = fade.untangle(found, store=tmp_path, progress=False)
    assert texts(made) == {0: "pets", 1: "colours", 4: "wild animals"}
    told = made.run["collisions"]
    assert (told["share_before"], told["share_after"], told["explained"], told["replaced"]) == (2 / 3, 0, 2, 2)
    assert made.frame["explainer"].tolist() == ["contrastive", "one-shot", "contrastive"]
    assert made.frame["flags"].tolist() == ["", "", ""]
    assert server.requests - before == 2 == told["usage"]["calls"]
    again = make(server).untangle(found, store=tmp_path, progress=False)
    assert texts(again) == texts(made) and server.requests - before == 2, "nothing is asked twice"
    assert texts(Explanations.of(made.to_csv(tmp_path / "labels.csv"))) == texts(made)


def test_each_is_shown_where_the_others_fire_and_it_is_silent(server: FakeJudge) -> None:
    fade = make(server, contrast_windows=6)
    given = {0: "animals", 1: "colours", 4: "Animals."}
    made = fade.untangle(given, progress=False)
    subject = Subject(MODEL, SAE_, TEXTS, [0, 4])
    for own, other in ((0, 4), (4, 0)):
        silent = [text for text, _, _ in made[own].shown[-6:]]
        assert len(silent) == 6 and (subject.natural(own)[silent] == 0).all() and (subject.natural(other)[silent] > 0).all()  # fmt: skip
    assert made[1].description == next(d for d in Explanations.of(given) if d.index == 1), "left as it was given"
    asked = [body["messages"][-1]["content"] for body in server.bodies]
    assert len(asked) == 2 and all(said.count("</silent") == 6 for said in asked)


def test_what_it_asks_at_most_is_told_before(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: None)
    fade, given = make(server, contrast_kinds=("token_silent",)), dict.fromkeys([0, 1, 4], "words")
    told = fade.estimate(Explanations.of(given).collisions().indices, explainer="contrastive", scorers=())
    assert told.calls == 3 and make(server).untangle(given, progress=False).run["collisions"]["share_after"] == 0
    assert server.requests == 3, "and it needs no extra, whatever kinds are set"


def test_a_latent_that_fires_wherever_another_does_keeps_its_description(server: FakeJudge) -> None:
    made = make(server).untangle({0: "animals", 5: "animals"}, progress=False)
    told = made.run["collisions"]
    assert texts(made) == {0: "pets", 5: "animals"} and told["share_after"] == 0
    assert told["without"] == {"inseparable": 1} and server.requests == 1, "there is nothing to ask of 5"


def test_a_run_that_scores_them_flags_those_that_share_a_description(server: FakeJudge, tmp_path: Path) -> None:
    server.rule = lambda concept, text: int(bool(NAMES.get(concept, set()) & words_of(text)))
    fade = make(server, detection_texts=8)
    results = fade.evaluate({0: "animals", 1: "colours", 4: "Animals."}, scorers=("detection",), progress=False)
    assert [[flag for flag in r.flags if flag.kind == "collides"] for r in results] == [["collides: with 4"], [], ["collides: with 0"]]  # fmt: skip
    assert "collides: with 4" in results.frame["flags"].tolist()[0]
    assert Results.load(results.save(tmp_path / "r.sqlite"))[0].flags == results[0].flags


def test_descriptions_of_which_none_collide_ask_nothing(server: FakeJudge) -> None:
    made = make(server).untangle({0: "pets", 4: "wild animals"}, progress=False)
    assert made.run["collisions"]["share_after"] == 0 == server.requests and made.run["collisions"]["explained"] == 0


@pytest.mark.parametrize(
    ("against", "explainer", "told"),
    [
        ({0: [4]}, "one-shot", "explainer 'one-shot' shows no windows of other features; give explainer='contrastive'"),
        ({0: [4], 1: [4]}, "contrastive", "against tells feature 1 from .4.; give"),
        ({4: [0]}, "contrastive", "against tells feature 0 from None"),
        ({0: []}, "contrastive", "against tells feature 0 from"),
        ({0: [4, 0]}, "contrastive", "features other than itself"),
        ({0: [77]}, "contrastive", "feature index 77 is out of range"),
    ],
)  # fmt: skip
def test_features_that_cannot_be_told_apart_are_told(server: FakeJudge, against: Any, explainer: str, told: str) -> None:  # fmt: skip
    with pytest.raises(InputError, match=told):
        make(server).explain([0], explainer=explainer, against=against, progress=False)
    with pytest.raises(InputError, match="feature 0 has 2 explanations"):
        make(server).untangle([*Explanations.of({0: "a", 4: "b"}), *Explanations.of({0: "b"})], progress=False)
    assert not server.requests
