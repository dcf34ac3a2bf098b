"""The model describes a direction: what is put in and where, against a plain loop; the signals; models that cannot answer."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fade_lens import InputError
from fade_lens.generation.patchscopes import SCALES, Question, answers, question, until_quote
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


def test_answers_and_signals_are_those_of_a_plain_loop() -> None:
    model, about = asked(layer=1)
    directions = torch.randn((2, model.cfg.d_model), generator=torch.Generator().manual_seed(1))
    found = answers(model, about, directions, (0.5, 2.0), new_tokens=4)
    never = model.tokenizer.all_special_ids
    for row, (own, _) in enumerate(found):
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
            assert told.text == model.tokenizer.decode(tokens[len(about.tokens) :])
            assert told.relevancy == pytest.approx(sum(change) / 4, abs=1e-4)


def test_every_scale_has_a_random_direction_beside_it_and_a_direction_alone_says_the_same() -> None:
    model, about = asked()
    directions = torch.randn((3, model.cfg.d_model), generator=torch.Generator().manual_seed(1))
    own, null = answers(model, about, directions, new_tokens=3)[0]
    assert [one.scale for one in own] == [one.scale for one in null] == list(SCALES)
    longer = answers(model, about, directions[:1] * 7, new_tokens=3)[0]
    for one, other in zip((*own, *null), (*longer[0], *longer[1]), strict=True):
        assert one.text == other.text and one.self_similarity == pytest.approx(other.self_similarity, abs=1e-5)


def test_an_answer_ends_at_its_first_quotation_mark() -> None:
    letters = SimpleNamespace(decode=lambda ids, **_: "".join(map(chr, ids)))
    about = Question(tuple(b'means "'), (0,), 0, 1.0)
    for said, text, n in ((b'big cat." and', "big cat", 8), (b'" x', "", 1), (b" cat", "cat", 4)):
        assert until_quote(letters, about, list(said)) == (text, n)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no chat template"),
        ({"ask": "what", "answer": "this"}, "has no {x}"),
        ({"ask": ASK, "answer": ANSWER, "layer": 3}, "layer is 3"),
    ],
)
def test_questions_that_cannot_be_asked_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        question(tiny_model(n_layers=3), **options)


def test_scales_and_answers_that_cannot_be_are_told() -> None:
    model, about = asked()
    directions = torch.ones((1, model.cfg.d_model))
    for scales in ((), (0.0,), (float("nan"),)):
        with pytest.raises(InputError, match="scales are"):
            answers(model, about, directions, scales)
    with pytest.raises(InputError, match="new_tokens is 60"):
        answers(model, about, directions, new_tokens=60)
