"""How much runs at a time, in numbers; the values do not depend on it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fade_lens.data.corpus import Corpus
from fade_lens.subject.activations import OutlierRule, max_activations, maxima
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import read_hooks
from fade_lens.subject.memory import (
    Shape,
    free_bytes,
    piece_bytes,
    piece_that_fits,
    rows_at_once,
    rows_that_fit,
    tokens_at_once,
    tokens_that_fit,
)
from fade_lens.subject.tokens import tokenize
from tests.tiny import WORDS, tiny_model, tiny_sae

GB = 10**9
GEMMA = Shape(26, 2304, 9216, 8, 4, 256, 256_000, 2)  # Gemma 2 2B in bfloat16
GPT2 = Shape(12, 768, 3072, 12, 12, 64, 50_257, 4)
LLAMA = Shape(32, 4096, 14336, 32, 8, 128, 128_256, 2)  # Llama 3.1 8B in bfloat16


def test_keys_and_values_are_what_the_architecture_says() -> None:
    assert GEMMA.keys_and_values(1) == 2 * 26 * 4 * 256 * 2 == 106_496
    assert LLAMA.keys_and_values(100) == 100 * 131_072


@pytest.mark.parametrize(
    ("shape", "free", "prompt", "new_tokens", "rows"),
    [
        (GEMMA, 72 * GB, 16, 30, 4096),  # a card of 80 GB, the model loaded
        (GEMMA, 17 * GB, 16, 30, 1024),  # of 24 GB
        (GEMMA, 2 * GB, 16, 30, 128),
        (GEMMA, 72 * GB, 500, 30, 256),
        (LLAMA, 60 * GB, 16, 30, 4096),
        (GPT2, 6 * GB, 16, 30, 512),
        (GPT2, 0, 16, 30, 1),
    ],
)
def test_as_many_continuations_run_as_memory_has_room_for(
    shape: Shape, free: int, prompt: int, new_tokens: int, rows: int
) -> None:
    assert rows_that_fit(free, shape, prompt, new_tokens) == rows
    assert rows == 1 or rows * shape.continuation(prompt, new_tokens) < free


def test_the_prompt_s_pass_is_not_what_limits_a_batch_of_usual_prompts() -> None:
    for shape in (GEMMA, GPT2, LLAMA):
        assert 16 * shape.block(16) < shape.logits()
        assert shape.continuation(16, 30) == shape.keys_and_values(46) + shape.logits()
    assert GEMMA.continuation(16, 30, encoded=65_536) > GEMMA.continuation(16, 30), "unless an SAE encodes all latents"


@pytest.mark.parametrize(
    ("shape", "free", "length", "tokens"),
    [
        (GEMMA, 72 * GB, 128, 16_384),
        (GEMMA, 10 * GB, 128, 16_384),
        (GEMMA, 3 * GB, 128, 8192),
        (GPT2, 2 * GB, 1024, 4096),
        (LLAMA, 3 * GB, 8192, 512),
        (GPT2, 0, 128, 1),
    ],
)
def test_texts_of_a_pass_fit_in_memory_beside_what_is_encoded_of_them(
    shape: Shape, free: int, length: int, tokens: int
) -> None:
    assert tokens_that_fit(free, shape, length) == tokens
    assert tokens == 1 or tokens * shape.token(length) + 8 * piece_that_fits(free) < free


def test_many_hooks_leave_less_room() -> None:
    assert tokens_that_fit(12 * GB, GEMMA, 128, kept=52 * 2304) < tokens_that_fit(12 * GB, GEMMA, 128)


def test_a_little_more_or_less_memory_changes_no_batch() -> None:
    assert len({rows_that_fit(free * GB // 10, GEMMA, 16, 30) for free in range(160, 181)}) == 1


def test_a_model_s_shape_is_read_from_it_and_a_cpu_takes_what_its_cache_holds() -> None:
    model = tiny_model(n_key_value_heads=2)
    assert Shape.of(model) == Shape(2, 32, 128, 4, 2, 8, model.cfg.d_vocab, 4)
    cpu = torch.device("cpu")
    assert free_bytes(cpu) is None and piece_bytes(cpu) == 2**23
    assert rows_at_once(model, [(2, 3)], 30) == 256 and tokens_at_once(model, 64) == 2048
    assert tokens_at_once(model, 64, device="cuda") == 16_384, "workers' memory is not known here"


def test_a_cuda_device_s_free_memory_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch has reserved and does not use is free as well."""
    model = tiny_model()
    on_card = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float32, is_floating_point=lambda: True)
    monkeypatch.setattr(model, "parameters", lambda: iter([on_card]))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (10**5, 10**9))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda _: 10**6)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda _: 3 * 10**5)
    assert free_bytes(on_card.device) == 8 * 10**5
    assert rows_at_once(model, [(2, 3), (2, 3, 4)], 5) == rows_that_fit(8 * 10**5, Shape.of(model), 3, 5) == 32
    assert tokens_at_once(model, 20, 64) == tokens_that_fit(8 * 10**5, Shape.of(model), 20, 64)


def test_a_batch_of_texts_for_which_memory_runs_out_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    texts = [" ".join(WORDS[i : i + 3 + i % 5]) for i in range(20)]
    tokens = tokenize(model, Corpus.from_texts(texts), context=16, prepend_bos=True)
    features, rule = features_of(model, tiny_sae(), [1, 5, 9]), OutlierRule(6.0)
    whole = max_activations(model, features, tokens, rule, batch_tokens=400)
    sizes: list[int] = []

    def little(subject: Any, ids: Any, *rest: Any) -> Any:
        sizes.append(len(ids))
        if len(ids) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return read_hooks(subject, ids, *rest)

    monkeypatch.setattr("fade_lens.subject.activations.read_hooks", little)
    halved = max_activations(model, features, tokens, rule, batch_tokens=400)
    assert sizes == [20, 10, 5, 5, 10, 5, 5]
    np.testing.assert_allclose(halved.values, whole.values, rtol=1e-5, atol=1e-6)
    assert np.array_equal(halved.positions, whole.positions) and halved.n_outliers == whole.n_outliers
    with pytest.raises(torch.OutOfMemoryError):
        monkeypatch.setattr("fade_lens.subject.activations.read_hooks", lambda *_: little(model, range(7)))
        max_activations(model, features, tokens, rule, batch_tokens=400)


def test_what_is_done_with_a_batch_s_results_is_done_while_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU would wait for it otherwise; the last batch has no next one."""
    model, order = tiny_model(), list[str]()
    tokens = tokenize(model, Corpus.from_texts(["a big cat"] * 3), context=16, prepend_bos=True)

    def seen(*arguments: Any) -> Any:
        order.append("runs")
        return read_hooks(*arguments)

    monkeypatch.setattr("fade_lens.subject.activations.read_hooks", seen)
    ruled = [(features_of(model, tiny_sae(), [1, 5]), OutlierRule(6.0))]
    for _ in maxima(model, ruled, tokens, np.arange(3), 4):
        order.append("done")
    assert order == ["runs", "runs", "done", "runs", "done", "done"]
