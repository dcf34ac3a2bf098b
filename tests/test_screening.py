"""The likeliest token found from products of bytes, against the exact logits of all."""

import logging

import numpy as np
import pytest
import torch

from fade_lens import screening
from fade_lens.next_token import Sampler, Unembedding
from fade_lens.screening import Screen

pytestmark = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="this processor has no fast products of bytes, so nothing is screened"
)
TOKENS, WIDTH, ROWS = 1000, 96, 40


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two groups, and of an uneven rest; vocabularies of tests are worth screening."""
    monkeypatch.setattr("fade_lens.next_token.CPU_CHUNK", 256)
    monkeypatch.setattr(screening, "LEAST_TOKENS", 10)


def weights(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Unembedding weights of unequal tokens, some dimensions far larger than others."""
    generator = torch.Generator().manual_seed(0)
    W_U = torch.randn(WIDTH, TOKENS, generator=generator)
    return (W_U * torch.linspace(0.5, 2, TOKENS) * torch.linspace(0.2, 5, WIDTH)[:, None]).to(dtype)


def states(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(ROWS, WIDTH, generator=generator) * torch.logspace(-2, 2, ROWS)[:, None]).to(dtype)


def greedy(head: Unembedding, state: torch.Tensor, forbidden: list[int]) -> list[int]:
    sampler = Sampler(head, np.zeros((len(state), 1)), torch.tensor(forbidden, dtype=torch.long), 0.0, None)
    return sampler.choose(state, 0).tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_token_is_the_likeliest(dtype: torch.dtype) -> None:
    W_U, state = weights(dtype), states(dtype)
    exact = state.double() @ W_U.double()
    forbidden = [0, 999, *exact[:10].argmax(-1).tolist()]
    head = Unembedding(W_U, torch.zeros(TOKENS), 30.0)
    assert head.screen is not None
    assert (
        greedy(head, state, forbidden) == exact.index_fill(1, torch.tensor(forbidden), -torch.inf).argmax(-1).tolist()
    )
    assert "_chunks" not in vars(head), "no row needed the logits of all tokens"


def test_near_ties_are_told_apart() -> None:
    """Tokens so alike that their order in bytes is chance."""
    common, apart = weights()[:, :1], weights()
    W_U, state = common + 0.01 * apart, states() + 5 * common.T
    head = Unembedding(W_U, torch.zeros(TOKENS), 0.0)
    assert head.screen is not None
    rounded = head.screen.rounded(state)
    in_bytes = torch.cat([head.screen.logits(rounded, start) for start in head.starts], dim=1).argmax(-1)
    expected = (state.double() @ W_U.double()).argmax(-1)
    assert (in_bytes != expected).any(), "bytes alone are wrong"
    assert greedy(head, state, []) == expected.tolist()


def test_the_first_of_equal_tokens_is_taken() -> None:
    W_U, state = weights(), states()
    best = int((state[0] @ W_U).argmax())
    W_U[:, [3, 500, 995]] = W_U[:, best, None]
    assert greedy(Unembedding(W_U, torch.zeros(TOKENS), 0.0), state[:1], []) == [min(best, 3)]


def test_rows_with_too_many_candidates_are_unembedded_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "MOST_CANDIDATES", 20)
    W_U, state = weights(), states()
    state[3] = 0.0  # all logits alike
    state[5] = torch.finfo(torch.float32).max  # what an overflow becomes
    head = Unembedding(W_U, torch.zeros(TOKENS), 0.0)
    found, expected = greedy(head, state, [0]), (state @ W_U).index_fill(1, torch.tensor([0]), -torch.inf).argmax(-1)
    assert found[3] == 1 and found[5] != 0
    assert [f for row, f in enumerate(found) if row not in (3, 5)] == [
        e for row, e in enumerate(expected.tolist()) if row not in (3, 5)
    ]


def test_a_row_that_is_not_sure_has_no_exact_logits_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that overflowed is zero, and any token may be its likeliest."""
    monkeypatch.setattr(screening, "MOST_CANDIDATES", 20)
    made: list[int] = []
    exact = Screen._exact
    monkeypatch.setattr(
        Screen, "_exact", lambda self, state, row, token: made.append(len(row)) or exact(self, state, row, token)
    )
    head = Unembedding(weights(), torch.zeros(TOKENS), 0.0)
    greedy(head, states(), [])
    ordinary = sum(made)
    made.clear()
    greedy(head, torch.cat([states(), torch.zeros(5, WIDTH)]), [])
    assert sum(made) == ordinary


def test_approximate_logits_are_within_their_error() -> None:
    W_U, state = weights(), states()
    screen = Screen.of(W_U.T, range(0, TOKENS, 256))
    assert screen is not None
    rounded = screen.rounded(state)
    found = torch.cat([screen.logits(rounded, start) for start in range(0, TOKENS, 256)], dim=1)
    off = (found - (state @ W_U) / rounded.unit[:, None]).abs().amax(-1)
    assert (off <= rounded.error).all()
    assert (off > rounded.error / 20).all(), "the bound says something"


def test_no_screen_where_it_would_gain_nothing_or_be_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    W_U, state = weights(), states()
    bias = torch.arange(TOKENS) * 100.0
    with_bias = Unembedding(W_U, bias, 0.0)
    assert with_bias.screen is None and greedy(with_bias, state, []) == (state @ W_U + bias).argmax(-1).tolist()

    logits = Screen.logits
    monkeypatch.setattr(Screen, "logits", lambda self, rounded, start: 1.5 * logits(self, rounded, start))
    with caplog.at_level(logging.WARNING):
        wrong = Unembedding(W_U, torch.zeros(TOKENS), 0.0)
        assert greedy(wrong, state, []) == (state @ W_U).argmax(-1).tolist()
    assert wrong.screen is None and "not screened" in caplog.text

    monkeypatch.setattr(screening, "_onednn", object())  # another torch, without these operations
    assert Unembedding(W_U, torch.zeros(TOKENS), 0.0).screen is None
    monkeypatch.setattr(screening, "LEAST_TOKENS", TOKENS + 1)
    assert Unembedding(W_U, torch.zeros(TOKENS), 0.0).screen is None
