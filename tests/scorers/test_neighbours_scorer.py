"""Is a description told from the nearest latents? Latents of the planted model, two of which lie close together."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fade_lens import Fade, Results
from fade_lens.judge import Judge
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule
from tests.tiny import HOOK

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(700)
BROAD = "names of animals or of colours"
with torch.no_grad():  # what latents 0 and 1 write is alike, what they read is not
    SAE.W_dec[0, 1] = SAE.W_dec[1, 0] = 0.9
SMALL: dict[str, Any] = {"neighbour_texts": 10, "neighbour_latents": 1, "window_tokens": 8}


def at_most_one(concept: str, text: str) -> int:
    both = (TRUE[0], TRUE[1]) if concept == BROAD else (concept,)
    return int(any(rule(one, text) for one in both))


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=at_most_one) as running:
        yield running


def scored(judge: Judge, descriptions: Any, source: Any = SAE, *, corpus: Any = TEXTS, by: str = "decoder", **more: Any) -> Results:  # fmt: skip
    fade = Fade(MODEL, source, corpus=corpus, judge=judge, neighbours_by=by, **SMALL)
    return fade.evaluate(descriptions, scorers=("neighbours",), progress=False, **more)


def test_a_description_is_told_from_a_neighbour_unless_it_is_too_broad_or_the_neighbours_own(server: FakeJudge) -> None:
    right, broad, swapped = (scored(judge_of(server), {0: text})[0].metric("neighbours") for text in (TRUE[0], BROAD, TRUE[1]))  # fmt: skip
    assert right.value == 1 and right.details["rank"] == 1 and right.details["better"] is None
    assert broad.value == 0.5 and broad.details["rank"] == 1.5
    assert swapped.value is not None and swapped.value < 0.2 and swapped.details["rank"] == 2
    assert swapped.details["better"] == 1, "the description fits latent 1 better"


def test_the_estimate_is_what_is_asked_and_nothing_is_asked_twice(server: FakeJudge, tmp_path: Any) -> None:
    described = {0: TRUE[0], 1: TRUE[1]}
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **SMALL)
    first = scored(judge_of(server), described, store=tmp_path)
    assert fade.estimate(described, scorers=("neighbours",)).calls == 4 == server.requests - 2
    before = server.requests
    assert scored(judge_of(server), described, store=tmp_path).items == first.items and server.requests == before


def test_neighbours_by_cofiring_are_features_of_the_run_that_fire_on_the_same_texts(server: FakeJudge) -> None:
    both = [f"{text} red cat" if at % 9 == 0 else text for at, text in enumerate(TEXTS)]
    results = scored(judge_of(server), {**TRUE, 1: TRUE[0]}, corpus=both, by="cofiring")
    kinds = [{text.kind for text in r.evidence["neighbours"].texts} for r in results]
    assert kinds[0] == {"active", "neighbour 1"} and kinds[1] == {"active", "neighbour 0"}
    assert results[0].metric("neighbours").value == 1 and results[1].metric("neighbours").details["better"] == 0
    alone = scored(judge_of(server), {0: TRUE[0]}, by="cofiring")[0].metric("neighbours").reason
    assert alone is not None and alone.code == "no_neighbours"


def test_without_neighbours_there_is_a_reason(server: FakeJudge) -> None:
    of_neuron = scored(judge_of(server), {0: TRUE[0]}, HOOK)[0].metric("neighbours").reason
    silent = scored(judge_of(server), {0: TRUE[0], 3: "rivers"})[3].metric("neighbours").reason
    assert of_neuron is not None and of_neuron.code == "no_neighbours"
    assert silent is not None and silent.code == "silent"
