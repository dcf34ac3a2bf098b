"""`causes` as a user calls it."""

from typing import Any

import numpy as np
import pytest

import fade_lens
from tests.tiny import HOOK, tiny_model, tiny_sae


def test_the_frame_has_a_row_for_every_feature_text_and_token() -> None:
    frame: Any = fade_lens.causes(
        tiny_model(), tiny_sae(hook="blocks.1.hook_resid_post"), "0:3", ["the cat sees", "a dog"], silences=True
    )
    assert list(frame.columns) == ["index", "text", "position", "token", "activation", "cause", "silence"]
    assert len(frame) == 3 * (4 + 3)
    assert frame[frame["position"] == 0]["cause"].isna().all()
    assert frame[frame["position"] > 0]["cause"].notna().all()
    last = frame[(frame["text"] == 0) & (frame["position"] == 3)]
    assert (last["cause"] == 0).all()  # nothing stands behind it
    assert np.abs(frame["cause"].fillna(0)).max() > 0


@pytest.mark.parametrize(
    ("indices", "texts", "words"),
    [
        ([0], [], "texts holds 0 texts"),
        ([0], "", "holds no token that counts"),
        ([0], ["the cat"] * 1001, "1001 texts"),
        ([64], "the cat", "out of range"),
        ("x", "the cat", "x"),
    ],
)
def test_what_cannot_be_read_is_told(indices: list[int] | str, texts: list[str] | str, words: str) -> None:
    with pytest.raises(fade_lens.InputError, match=words):
        fade_lens.causes(tiny_model(), tiny_sae(hook=HOOK), indices, texts)
