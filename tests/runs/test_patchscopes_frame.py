"""`patchscopes` as a user calls it."""

from typing import Any

import pytest
import torch

import fade_lens
from fade_lens.generation.patchscopes import Answer
from fade_lens.runs.patchscopes import SelfExplanations
from tests.tiny import D_MODEL, tiny_model, tiny_sae

WORDS: dict[str, Any] = {"ask": "the cat sees {x}", "answer": "again {x}", "n_random": 4}


def said(*texts: str, score: float = 0.0) -> tuple[Answer, ...]:
    return tuple(Answer(0.5 + at, text, 0.1, 2.0, 0.3, score + at, kept=score > 0) for at, text in enumerate(texts))


FOUND = SelfExplanations({9: said("cat", "<b>dog</b> $x$", score=5.0), 12: said("", "word")}, (said("none", "a word"),))


def test_a_row_for_every_feature_and_scale() -> None:
    model: Any = tiny_model()
    found = fade_lens.patchscopes(model, tiny_sae(), [3, 7], (0.5, 1.0), new_tokens=2, **WORDS)
    frame: Any = found.frame
    assert list(frame["index"]) == [3, 3, 7, 7] and list(frame["scale"]) == [0.5, 1.0] * 2 and len(found.random) == 4
    assert frame["random_relevancy"][1] == pytest.approx(sum(row[1].relevancy for row in found.random) / 4)
    assert list(frame["random_answer"]) == [answer.text for answer in found.random[0]] * 2
    rows = torch.stack([tiny_sae().W_dec[3], torch.ones(D_MODEL)])
    own: Any = fade_lens.patchscopes(model, rows, None, (0.5, 1.0), new_tokens=2, **WORDS).frame
    assert list(own["index"]) == [0, 0, 1, 1]
    assert list(own["answer"])[:2] == list(frame["answer"])[:2]


@pytest.mark.parametrize("architecture", ["transcoder", "jumprelu"])
def test_transcoders_are_asked_about_by_what_they_write(architecture: str) -> None:
    source: Any = tiny_sae(architecture, meta_hook_name_out="blocks.0.hook_mlp_out") if architecture == "transcoder" else tiny_sae(architecture)  # fmt: skip
    model: Any = tiny_model()
    found = fade_lens.patchscopes(model, source, [5], (1.0,), new_tokens=2, **WORDS)
    same = fade_lens.patchscopes(model, 3 * source.W_dec[5:6], None, (1.0,), new_tokens=2, **WORDS)
    assert found[5][0].text == same[0][0].text and found[5][0].signals == pytest.approx(same[0][0].signals, abs=1e-5)


def test_what_the_model_says_of_a_feature_is_its_best_answer_or_nothing() -> None:
    best: Any = FOUND.best
    assert (
        best["answer"][0] == "<b>dog</b> $x$"
        and best["scale"][0] == 1.5
        and best["answer"].isna().tolist() == [False, True]
    )
    with pytest.raises(fade_lens.InputError, match="feature 3 was not asked about; these were: 9, 12"):
        FOUND.plot(3)


def test_a_figure_has_the_signals_over_scales_with_random_directions_beside_and_hostile_answers_as_text() -> None:
    figure = FOUND.plot(9)
    lines: Any = figure.data
    assert len(lines) == 4 * 2 and [tuple(line.x) for line in lines] == [(0.5, 1.5)] * 8
    assert [tuple(line.y) for line in lines[1::2]] == [(0.1, 0.1), (2.0, 2.0), (0.3, 0.3), (5.0, 6.0)]
    assert "&lt;b&gt;dog" in str(figure.layout.title.text) and "$" not in lines[1].text[1]
    assert "nothing beyond" in str(FOUND.plot(12).layout.title.text)


def test_a_notebook_shows_answers_by_scale() -> None:
    html = FOUND._repr_html_()
    assert "at scale 0.5" in html and "<b>&lt;b&gt;dog" in html and "<i>nothing</i>" in html and ">random<" in html


def test_what_cannot_be_asked_about_is_told() -> None:
    model: Any = tiny_model()
    with pytest.raises(fade_lens.InputError, match=r"shape \(2, 3\)"):
        fade_lens.patchscopes(model, torch.ones(2, 3), **WORDS)
    with pytest.raises(fade_lens.InputError, match="indices are missing"):
        fade_lens.patchscopes(model, tiny_sae(), **WORDS)
    with pytest.raises(fade_lens.InputError, match="chat template"):
        fade_lens.patchscopes(model, tiny_sae(), [3])
    rows = torch.ones(3, D_MODEL)
    rows[1] = 0
    with pytest.raises(fade_lens.InputError, match="source gives feature 1 a direction that is zero"):
        fade_lens.patchscopes(model, rows, **WORDS)
    for indices in ([0, 3], [-1], "2:9", [0, 0]):
        with pytest.raises(fade_lens.InputError, match=r"out of range|twice"):
            fade_lens.patchscopes(model, rows, indices, **WORDS)
