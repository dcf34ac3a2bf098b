"""`patchscopes` as a user calls it."""

from typing import Any

import pytest
import torch

import fade_lens
from tests.tiny import D_MODEL, tiny_model, tiny_sae

WORDS: dict[str, Any] = {"ask": "the cat sees {x}", "answer": "again {x}"}


def test_a_row_for_every_feature_and_scale() -> None:
    model: Any = tiny_model()
    frame: Any = fade_lens.patchscopes(model, tiny_sae(), [3, 7], (0.5, 1.0), new_tokens=2, **WORDS)
    assert list(frame["index"]) == [3, 3, 7, 7] and list(frame["scale"]) == [0.5, 1.0] * 2
    assert (
        frame["kept"]
        == ((frame["relevancy"] > frame["random_relevancy"]) & (frame["answer"] != frame["random_answer"]))
    ).all()
    rows = torch.stack([tiny_sae().W_dec[3].detach(), torch.ones(D_MODEL)])
    own: Any = fade_lens.patchscopes(model, rows, None, (0.5, 1.0), new_tokens=2, **WORDS)
    assert list(own["index"]) == [0, 0, 1, 1]
    assert list(own["answer"])[:2] == list(frame["answer"])[:2]


def test_what_cannot_be_asked_about_is_told() -> None:
    model: Any = tiny_model()
    with pytest.raises(fade_lens.InputError, match=r"shape \(2, 3\)"):
        fade_lens.patchscopes(model, torch.ones(2, 3), **WORDS)
    with pytest.raises(fade_lens.InputError, match="indices are missing"):
        fade_lens.patchscopes(model, tiny_sae(), **WORDS)
    with pytest.raises(fade_lens.InputError, match="chat template"):
        fade_lens.patchscopes(model, tiny_sae(), [3])
