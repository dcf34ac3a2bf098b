"""A GPU against the CPU: features of every architecture, the pass over a corpus, and generation with recorded steps."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens.registry import SAE_CLASS_REGISTRY

from fade_lens.data.corpus import Corpus
from fade_lens.generation.decoders.compact import CompactDecoder
from fade_lens.generation.decoders.graphs import CudaGraphs, GraphDecoder
from fade_lens.generation.decoders.heads import Unembedding
from fade_lens.generation.fluency import negative_log_likelihood
from fade_lens.generation.next_token import Sampler
from fade_lens.generation.steering import Request, Steering, continue_batch, decoder_for, generate, uniforms
from fade_lens.subject.activations import OutlierRule, max_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import read_hooks
from fade_lens.subject.tokens import tokenize
from tests.architectures import ARCHITECTURES, VOCABULARY, hooked, sae_at
from tests.tiny import HOOK, WORDS, tiny_model, tiny_sae

GPU = torch.device("cuda")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="PyTorch sees no GPU here, and these tests compare one with the CPU"
    ),
]
INDICES, RESIDUAL, NEW = [7, 2, 11], "blocks.1.hook_resid_post", 8
FAMILIAR = [name for name in ARCHITECTURES if name != "alibi"]
SAMPLING: list[tuple[float, int | None]] = [(0.0, None), (0.8, None), (1.2, 5)]
REFERENCE = torch.tensor([2.0, 3.0, 4.0])


@pytest.fixture(autouse=True)
def whole_float32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def batch(seed: int, rows: int = 12, lengths: Sequence[int] = (5,)) -> list[Request]:
    rng = np.random.default_rng(seed)
    prompts = [(2, *map(int, rng.integers(3, VOCABULARY, lengths[i % len(lengths)] - 1))) for i in range(rows)]
    chosen = [None if i == 4 else int(rng.integers(3)) for i in range(rows)]
    return [Request(prompts[i], chosen[i], float(rng.choice([1.5, -2.0, 4.0])), 100 * seed + i) for i in range(rows)]


@pytest.mark.parametrize("architecture", sorted(SAE_CLASS_REGISTRY))
def test_features_are_encoded_as_on_the_cpu(architecture: str) -> None:
    tokens, found = torch.randint(4, 30, (3, 9), generator=torch.Generator().manual_seed(0)), []
    for device in ("cpu", GPU):
        model = tiny_model().to(device)
        features = features_of(model, tiny_sae(architecture), INDICES)
        hidden = read_hooks(model, tokens, [HOOK])[HOOK]
        found.append((features.encode(hidden).detach().cpu(), features.directions().cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("source", [*sorted(SAE_CLASS_REGISTRY), "neurons"])
def test_the_pass_finds_what_it_finds_on_the_cpu(source: str) -> None:
    rng = np.random.default_rng(0)
    texts, found = [" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(60)], []
    for device in ("cpu", GPU):
        model = tiny_model().to(device)
        tokens = tokenize(model, Corpus.from_texts(texts), context=32, prepend_bos=True)
        features = features_of(model, "blocks.1.mlp.hook_post" if source == "neurons" else tiny_sae(source), INDICES)
        found.append(max_activations(model, features, tokens, OutlierRule(float("inf"))))
    np.testing.assert_allclose(found[1].values, found[0].values, rtol=1e-3, atol=1e-4)


def counted() -> tuple[Callable[..., Any], list[int]]:
    """CUDA graphs, and how many were recorded and replayed."""
    graphs, counts = CudaGraphs(GPU), [0, 0]

    def record(step: Callable[[], Any]) -> Callable[[], Any]:
        replay = graphs(step)
        counts[0] += 1

        def again() -> Any:
            counts[1] += 1
            return replay()

        return again

    return record, counts


@pytest.mark.parametrize("lengths", [(5,), (4, 9, 6)])
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("architecture", FAMILIAR)
def test_generation_writes_what_it_writes_on_the_cpu(architecture: str, sampling: Any, lengths: Sequence[int]) -> None:
    temperature, top_k = sampling
    options: dict[str, Any] = {"new_tokens": NEW, "temperature": temperature, "top_k": top_k}
    cpu, gpu = hooked(architecture), hooked(architecture).to(GPU)
    features = [features_of(model, sae_at(RESIDUAL), INDICES) for model in (cpu, gpu)]
    record, counts = counted()
    with torch.no_grad():
        decoder = GraphDecoder(gpu, [RESIDUAL], [(2, 40, 7), tuple(range(2, 16))], record)
    same = []
    for seed in range(4):
        requests = batch(seed, lengths=lengths)
        expected = generate(cpu, features[0], requests, REFERENCE, **options)
        found = generate(gpu, features[1], requests, REFERENCE, decoder=decoder, **options)
        same += (found == expected).all(axis=1).tolist()
    assert np.mean(same) > 0.95, "rounding may turn a near tie, seldom"
    assert counts == [NEW - 1, 3 * (NEW - 1)], "steps must be recorded and replayed for this to be a test"


@pytest.mark.parametrize("lengths", [(5,), (4, 9, 6)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen-folded", "gemma2"])
def test_recorded_steps_are_the_steps_in_half_precision(architecture: str, dtype: Any, lengths: Sequence[int]) -> None:
    model = hooked(architecture, dtype=dtype).to(GPU)
    features, (record, counts) = features_of(model, sae_at(RESIDUAL), INDICES), counted()
    prompts = [(2, 40, 7), tuple(range(2, 16))]
    with torch.no_grad():
        decoders = GraphDecoder(model, [RESIDUAL], prompts, record), CompactDecoder(model, [RESIDUAL], prompts)
    for seed, rows in enumerate((12, 12, 12, 5, 12, 5, 5, 30, 12)):
        found = [
            generate(model, features, batch(seed, rows, lengths), REFERENCE, new_tokens=NEW, temperature=0.7, decoder=d)
            for d in decoders
        ]
        assert found[0].tolist() == found[1].tolist()
    assert counts[0] == 2 * (NEW - 1) and counts[1] > 4 * (NEW - 1)


class Watched(Sampler):
    """A sampler from whose given choice on, if any, nothing may wait for the GPU until its last."""

    first: int | None = None

    def choose(self, state: torch.Tensor, step: int) -> torch.Tensor:
        if step == self.first:
            torch.cuda.set_sync_debug_mode("error")
        found = super().choose(state, step)
        if step == NEW - 1:
            torch.cuda.set_sync_debug_mode("default")
        return found


@pytest.mark.parametrize("lengths", [(5,), (4, 9, 6)])
@pytest.mark.parametrize("sampling", SAMPLING)
def test_no_step_waits_for_the_gpu(sampling: Any, lengths: Sequence[int]) -> None:
    model = hooked("gemma2", dtype=torch.bfloat16).to(GPU)
    features = features_of(model, sae_at(RESIDUAL), INDICES)
    decoder = decoder_for(model, features, batch(0, lengths=lengths))
    assert isinstance(decoder, GraphDecoder)
    # The second batch is recorded, and the third compared at its first step.
    for seed, first in enumerate((0, None, 1, 0, 0)):
        requests = batch(seed, lengths=lengths)
        steering = Steering(model, features, requests, REFERENCE, "add")
        sampler = Watched(decoder.head, uniforms(requests, NEW), torch.tensor([0, 1, 2]), *sampling)
        sampler.first = first
        try:
            with torch.no_grad():
                continue_batch(decoder, steering, requests, sampler, NEW)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_likelihoods_are_those_of_the_cpu() -> None:
    prompts = [(2, 40, 7), (2, 9), (2, 41, 5)]
    written = np.random.default_rng(0).integers(3, VOCABULARY, (3, NEW))
    found = [negative_log_likelihood(hooked("gemma2").to(device), prompts, written) for device in ("cpu", GPU)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_tokens_are_drawn_as_on_the_cpu(sampling: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    W_U, state = (torch.randn(*shape, generator=generator) for shape in ((16, 150_000), (500, 16)))
    drawn, found = np.random.default_rng(0).random((len(state), 1)), []
    for device in ("cpu", GPU):
        head = Unembedding(W_U.to(device), torch.zeros(W_U.shape[1], device=device), 30.0)
        found.append(Sampler(head, drawn, torch.tensor([0, 8192]), *sampling).choose(state.to(device), 0).cpu())
    assert int((found[0] != found[1]).sum()) <= 1
