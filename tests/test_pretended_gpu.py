"""What is forgotten on the CPU is found on a GPU that is pretended (`tests/pretend_gpu.py`); `tests/test_cuda.py` runs on a real one."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens.registry import SAE_CLASS_REGISTRY

import fade_lens
from fade_lens import Fade
from fade_lens.baselines.kinds import BASELINES
from fade_lens.data.corpus import Corpus
from fade_lens.generation.decoders.graphs import GraphDecoder
from fade_lens.generation.fluency import negative_log_likelihood
from fade_lens.generation.steering import generate
from fade_lens.subject.activations import OutlierRule, max_activations, token_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.tokens import tokenize
from tests.architectures import VOCABULARY, hooked, sae_at
from tests.fake_judge import FakeJudge
from tests.generation.test_graphs import HOOK, NEW, REFERENCE, batch
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.pretend_gpu import on_gpu, pretended
from tests.tiny import WORDS, tiny_model, tiny_sae

INDICES = [7, 2, 11]
PLACES: dict[str, Callable[[Any], Any]] = {"here": lambda module: module, "there": on_gpu}


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with pretended(), torch.no_grad():
        yield


def test_the_pretended_gpu_refuses_what_is_elsewhere() -> None:
    x = on_gpu(torch.nn.Linear(3, 2))
    assert x(torch.ones(4, 3, device=x.weight.device)).shape == (4, 2)
    for mixed in (lambda: x(torch.ones(4, 3)), lambda: torch.arange(4)[x.weight[0].long()], lambda: x.weight.numpy()):
        with pytest.raises((AssertionError, TypeError), match=r"same device|no array"):
            mixed()


@pytest.mark.parametrize(
    ("source", "where"),
    [
        *((name, "with the model") for name in [*sorted(SAE_CLASS_REGISTRY), "neurons"]),
        *((name, "on the CPU") for name in ("standard", "topk", "skip_transcoder")),
    ],
)
def test_the_pass_reads_features_whose_sae_is_there_or_on_the_cpu(source: str, where: str) -> None:
    rng = np.random.default_rng(0)
    texts, found = [" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(20)], list[Any]()
    for place in PLACES.values():
        model, sae = place(tiny_model()), "blocks.1.mlp.hook_post" if source == "neurons" else tiny_sae(source)
        features = features_of(model, place(sae) if where == "with the model" and source != "neurons" else sae, INDICES)
        tokens = tokenize(model, Corpus.from_texts(texts), context=32, prepend_bos=True)
        rule = OutlierRule.fit(model, features, tokens, factor=3)
        found.append((max_activations(model, features, tokens, rule).values, *token_activations(model, features, tokens, rule), features.directions().cpu()))  # fmt: skip
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["add", "clamp"])
@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_texts_are_written_there(architecture: str, mode: Any) -> None:
    cpu, there = hooked(architecture), on_gpu(hooked(architecture))
    features = [features_of(model, sae_at(HOOK), INDICES) for model in (cpu, there)]
    decoder = GraphDecoder(there, [HOOK], [(2, 40, 7), tuple(range(2, 16))], lambda step: step)
    for seed, lengths in enumerate(((4,), (4,), (4,), (4, 9))):
        options: dict[str, Any] = {"new_tokens": NEW, "mode": mode, "temperature": 0.8 * (seed % 2)}
        requests = batch(seed, lengths=lengths)
        expected = generate(cpu, features[0], requests, REFERENCE, **options)
        found = generate(there, features[1], requests, REFERENCE, decoder=decoder, **options)
        assert found.tolist() == expected.tolist()
    assert decoder.replayed == (NEW - 2 if mode == "add" else 0)


def test_likelihoods_are_read_there() -> None:
    written = np.random.default_rng(0).integers(3, VOCABULARY, (3, NEW))
    found = [negative_log_likelihood(place(hooked("gemma2")), [(2, 40, 7), (2, 9), (2, 41, 5)], written) for place in PLACES.values()]  # fmt: skip
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


SMALL: dict[str, Any] = {"prompts": 3, "prompt_tokens": 4, "new_tokens": 4, "rated_texts": 20, "synthetic_texts": 10, "detection_texts": 10, "controls": ("random_direction",), "factors": (1.0, 4.0), "least_texts": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("described", "options"),
    [
        (TRUE, {"scorers": ("fade", "detection", "neighbours"), "nulls": ("shuffled",)}),
        ([0, 1, 2], {"scorers": ("detection",), "explainer": "tfidf", "baselines": BASELINES}),
    ],
)
def test_a_whole_run_scores_there_what_it_scores_here(tmp_path: Path, described: Any, options: dict[str, Any]) -> None:
    found = list[Any]()
    with FakeJudge(rule=rule, writer=writer) as server:
        for name, place in PLACES.items():
            fade = Fade(place(planted_model()), place(planted_sae()), corpus=natural_texts(150), judge=judge_of(server), **SMALL)  # fmt: skip
            results = fade.evaluate(described, store=tmp_path / name, progress=False, **options)
            found.append([*results, *chain(*results.nulls.values(), *results.baselines.values())])
    assert len(found[0]) == len(found[1]) > 3
    for here, there in zip(*found, strict=True):
        values = [{name: metric.value for name, metric in one.metrics.items()} for one in (here, there)]
        assert values[1] == pytest.approx(values[0], abs=0.02)


@pytest.mark.parametrize("name", ["look", "fires", "causes", "steer", "health", "logit_weights"])
def test_what_asks_no_judge_finds_there_what_it_finds_here(name: str) -> None:
    text = "the cat sleeps in the house and the dog runs ."

    def found(place: Any) -> Any:
        model, sae = place(planted_model()), place(planted_sae())
        texts = Corpus.from_texts(natural_texts(100))
        return {
            "look": lambda: fade_lens.look(model, sae, [0, 1], texts, changed_tokens=3, caused_texts=2, progress=False).frame,
            "fires": lambda: fade_lens.fires(model, sae, text),
            "causes": lambda: fade_lens.causes(model, sae, [0, 1], text, silences=True),
            "steer": lambda: fade_lens.steer(model, sae, 0, ["the old", "a"], factors=(1.0, 4.0), unit=3.0, new_tokens=4),
            "health": lambda: fade_lens.health(model, sae, texts, texts=20, loss_texts=5, progress=False).frame,
            "logit_weights": lambda: fade_lens.logit_weights(model, sae, [0, 1], {"animals": WORDS[:6]}).sets,
        }[name]()  # fmt: skip

    here, there = map(found, PLACES.values())
    pd.testing.assert_frame_equal(pd.DataFrame(there), pd.DataFrame(here), rtol=1e-3, atol=1e-4)
