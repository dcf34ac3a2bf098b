"""The model describes a direction: what is put in and where, against a plain loop; the signals; models that cannot answer."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fade_lens import InputError
from fade_lens.generation.patchscopes import (
    CLOSING,
    SCALES,
    Answer,
    Question,
    answers,
    best,
    question,
    scored,
    until_end,
)
from tests.alphabets import byte_level
from tests.tiny import tiny_model

ASK, ANSWER = "the cat sees {x} and the dog", "again {x} today"


def asked(**options: Any) -> tuple[Any, Any]:
    model: Any = tiny_model(n_layers=3, n_ctx=64)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model, question(model, ASK, ANSWER, **options)


def test_the_placeholder_stands_where_the_words_say() -> None:
    model, about = asked()
    words = [model.tokenizer.decode([token]) for token in about.tokens]
    assert words == ["<bos>", "the", "cat", "sees", "<unk>", "and", "the", "dog", "again", "<unk>", "today"]
    assert about.places == (4, 9) and about.layer == 2
    _, cache = model.run_with_cache(torch.tensor([about.tokens]))
    norms = cache["blocks.2.hook_resid_pre"][0].norm(dim=-1)
    assert about.unit == pytest.approx(float(norms[[1, 2, 3, 5, 6, 7, 8, 10]].mean()), rel=1e-5)


@pytest.mark.parametrize("ends", ["\n", "og"])
def test_answers_and_signals_are_those_of_a_plain_loop(ends: str) -> None:
    model, about = asked(layer=1)
    about = replace(about, ends=ends)
    directions = torch.randn((2, model.cfg.d_model), generator=torch.Generator().manual_seed(1))
    found, _ = answers(model, about, directions, (0.5, 2.0), new_tokens=4)
    never = model.tokenizer.all_special_ids
    for row, own in enumerate(found):
        for told in own:
            put = directions[row] / directions[row].norm() * told.scale * about.unit

            def patch(x: torch.Tensor, hook: Any, put: torch.Tensor = put) -> torch.Tensor:
                x[:, list(about.places)] = put
                return x

            tokens, seen, change = list(about.tokens), list[torch.Tensor](), list[float]()
            late = "blocks.2.hook_resid_post"

            def read(x: torch.Tensor, hook: Any, seen: list[torch.Tensor] = seen) -> None:
                seen.append(x[0, len(about.tokens) - 1])

            with torch.no_grad():
                for step in range(4):
                    hooks = [("blocks.1.hook_resid_pre", patch), (late, read)]
                    logits = model.run_with_hooks(torch.tensor([tokens]), fwd_hooks=hooks)[0, -1]
                    if step == 0:
                        p = logits.softmax(-1)
                        assert told.entropy == pytest.approx(float(-(p * p.log()).sum()), abs=1e-3)
                        assert told.self_similarity == pytest.approx(
                            float(F.cosine_similarity(seen[0], put, dim=0)), abs=1e-4
                        )
                    allowed = logits.clone()
                    allowed[never] = -torch.inf
                    token = int(allowed.argmax())
                    without = model(torch.tensor([tokens]))[0, -1].softmax(-1)
                    change.append(float((logits.softmax(-1)[token] - without[token]).abs()))
                    tokens.append(token)
            said = [model.tokenizer.decode(tokens[len(about.tokens) :][:n]) for n in range(5)]
            n = next((n - 1 for n, text in enumerate(said) if set(ends) & set(text)), 4)
            assert told.text == re.split(f"[{ends}]", said[-1])[0].strip()
            assert told.relevancy == pytest.approx(sum(change[: max(n, 1)]) / max(n, 1), abs=1e-4)


def test_random_directions_stand_beside_and_a_direction_alone_says_the_same_whatever_its_length_and_type() -> None:
    model, about = asked()
    directions = torch.randn((7, model.cfg.d_model), generator=torch.Generator().manual_seed(1))
    found, random = answers(model, about, directions, new_tokens=3, n_random=5)
    assert len(found) == 7 and len(random) == 5
    assert all([one.scale for one in row] == list(SCALES) for row in (*found, *random))
    for given in (directions[:1] * 7, directions[:1].double()):
        [alone], same = answers(model, about, given, new_tokens=3, n_random=5)
        for one, other in zip((*found[0], *random[0]), (*alone, *same[0]), strict=True):
            assert one.text == other.text and one.kept == other.kept
            assert one.signals == pytest.approx(other.signals, abs=1e-5) and one.score == pytest.approx(
                other.score, abs=1e-2
            )


def test_scores_are_distances_from_random_directions_and_only_what_lies_beyond_them_is_kept() -> None:
    draw = np.random.default_rng(0)

    def said(shift: float, text: str) -> tuple[Answer, ...]:
        rows: list[list[float]] = (draw.normal(0, 1, (4, 3)) + shift * np.array([1, -1, 1])).tolist()
        return tuple(Answer(1.0, text, similarity, entropy, relevancy) for similarity, entropy, relevancy in rows)

    random = [said(0, f"chance {at}") for at in range(12)]
    given = [said(0, "no more"), said(20, "much more"), said(20, ""), said(20, "Chance 3"), said(-20, "less")]
    own, null = scored(given, random)
    assert [any(one.kept for one in row) for row in own] == [False, True, False, False, False]
    assert not any(one.kept for row in null for one in row)
    chosen = best(own[1])
    assert chosen is not None and chosen.score == max(one.score for one in own[1]) and best(own[0]) is None
    usual = np.array([[one.signals for one in row] for row in random])
    for told, beside in ((own[0][2], usual), (null[5][2], np.delete(usual, 5, axis=0))):
        spread = np.sqrt(np.mean([beside[:, at].var(axis=0, ddof=1) for at in range(4)], axis=0))
        wanted = np.mean((np.array(told.signals) - beside[:, 2].mean(axis=0)) / spread)
        assert told.score == pytest.approx(float(wanted))


@pytest.mark.parametrize(
    ("begins", "said", "text", "n"),
    [
        ('means "', 'big cat." and', "big cat", 8),
        ('means "', '" x', "", 1),
        ("means “", " cat", "cat", 4),
        ("means «", "le chat» et", "le chat", 7),
        ("means:", ' "a cat".\nAnd', "a cat", 9),
        ("means:", "\ncat\n", "cat", 4),
        ("means (", "a cat) and", "a cat", 5),
    ],
)
def test_an_answer_ends_where_what_opens_it_is_closed(begins: str, said: str, text: str, n: int) -> None:
    letters = SimpleNamespace(decode=lambda ids, **_: "".join(map(chr, ids)))
    about = Question(tuple(map(ord, begins)), (0,), 0, 1.0, CLOSING.get(begins[-1], "\n"))
    assert until_end(letters, about, list(map(ord, said))) == (text, n)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} [end]{% endfor %}",  # closes every turn, and knows no other way
        "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system turn first') }}{% endif %}"
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} [end]{% endfor %}",
    ],
)
def test_the_answer_goes_on_where_it_begins_whatever_the_template_writes(template: str) -> None:
    model: Any = tiny_model(n_layers=1, d_vocab=261, n_ctx=128)
    model.tokenizer = byte_level()  # knows no unk
    model.tokenizer.chat_template = template
    about = question(model, 'meaning of "{x}"?', '"{x}" means "')
    text = str(model.tokenizer.decode(list(about.tokens)))
    assert text.endswith('[user] meaning of "?"? [end][assistant] "?" means "') and about.layer == 0
    assert [model.tokenizer.decode([about.tokens[at]]) for at in about.places] == ["?", "?"]


def test_a_template_that_writes_no_such_thing_is_told() -> None:
    model: Any = tiny_model()
    for template in ("{{ raise_exception('never') }}", "{{ messages[0]['content'] }}", "{{ 1 + 'a' }}"):
        model.tokenizer.chat_template = template
        with pytest.raises(InputError, match="chat template cannot write"):
            question(model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no chat template"),
        ({"ask": "what", "answer": "this"}, "has no {x}"),
        ({"ask": ASK, "answer": ANSWER, "layer": 3}, "layer is 3"),
        ({"ask": "{x}", "answer": "{x}"}, "has no word beside"),
        ({"ask": ASK * 20, "answer": ANSWER}, "makes a question of 125 tokens"),
    ],
)
def test_questions_that_cannot_be_asked_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        question(tiny_model(n_layers=3), **options)


def test_a_scale_at_which_activations_overflow_says_nothing_and_the_others_are_as_without_it() -> None:
    model: Any = tiny_model(n_layers=3, n_ctx=64, dtype=torch.float16)
    about = question(model, ASK, ANSWER)
    directions = torch.randn((2, model.cfg.d_model), generator=torch.Generator().manual_seed(1))
    found, random = answers(model, about, directions, (0.5, 9e5, 1.0), new_tokens=2)
    same, _ = answers(model, about, directions, (0.5, 1.0), new_tokens=2)
    assert all(row[1].text == "" and not row[1].kept and row[1].entropy != row[1].entropy for row in (*found, *random))
    for row, other in zip(found, same, strict=True):
        assert [one.score for one in row[::2]] == pytest.approx([one.score for one in other], abs=1e-2)
    with pytest.raises(InputError, match="scales make the model's activations overflow"):
        answers(model, about, directions, (9e5,), new_tokens=2)


def test_scales_and_answers_that_cannot_be_are_told() -> None:
    model, about = asked()
    directions = torch.ones((1, model.cfg.d_model))
    for scales in ((), (0.0,), (float("nan"),), (float("inf"),), (-1.0,)):
        with pytest.raises(InputError, match=r"scales(\[0\] is| are none)"):
            answers(model, about, directions, scales)
    numbers: list[dict[str, Any]] = [{"new_tokens": 0}, {"n_random": 3}]
    for number in numbers:
        with pytest.raises(InputError, match=f"{next(iter(number))} is"):
            answers(model, about, directions, **number)
    for wrong in (0.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"directions\[1\] is zero"):
            answers(model, about, torch.stack([directions[0], wrong * directions[0]]))
    with pytest.raises(InputError, match="new_tokens is 60"):
        answers(model, about, directions, new_tokens=60)
