"""Tokens that steering makes likelier: planted directions write their own words, random directions nothing, and a slow twin agrees."""

from typing import Any

import numpy as np
import torch

from fade_lens.generation.token_change import log_probabilities, token_changes
from fade_lens.subject.features import features_of
from tests.planted import CLASSES, planted_model, planted_sae
from tests.tiny import VOCABULARY, tiny_model, tiny_sae

PROMPTS = [(1, 22, 25, 30), (1, 22), (1, 23, 24, 26, 27, 23)]


def test_steering_a_planted_latent_promotes_its_words_and_no_others() -> None:
    model: Any = planted_model()
    features = features_of(model, planted_sae(), [0, 1, 2, 3])
    found = token_changes(model, features, PROMPTS, np.array([1.0, 1.0, 1.0, np.nan]), 6)
    for index in CLASSES:
        assert {token for token, _ in found[index].promoted} == set(CLASSES[index])
        assert all(change < 0 for _, change in found[index].suppressed)
    assert found[3].promoted == () == found[3].suppressed  # it never fires, and so has no unit


def test_the_changes_are_those_of_a_plain_loop() -> None:
    model: Any = tiny_model()
    sae = tiny_sae()
    features = features_of(model, sae, [3, 7])
    found = token_changes(model, features, PROMPTS, np.array([2.0, 5.0]), len(VOCABULARY), factor=1.5, n_random=0)
    for column, (index, unit) in enumerate(((3, 2.0), (7, 5.0))):

        def push(x: torch.Tensor, hook: Any, index: int = index, unit: float = unit) -> torch.Tensor:
            return x + 1.5 * unit * sae.W_dec[index].detach()

        change = torch.zeros(len(VOCABULARY))
        with torch.no_grad():
            for prompt in PROMPTS:
                tokens = torch.tensor([prompt])
                steered = model.run_with_hooks(tokens, fwd_hooks=[(sae.cfg.metadata.hook_name, push)])[0, -1]
                change += (steered.log_softmax(-1) - model(tokens)[0, -1].log_softmax(-1)) / len(PROMPTS)
        told = dict(found[column].promoted) | dict(found[column].suppressed)
        assert len(told) == len(VOCABULARY) - 4
        for token, value in told.items():
            assert abs(value - float(change[VOCABULARY.index(token)])) < 1e-4


def test_what_random_directions_do_as_well_is_left_out() -> None:
    model: Any = tiny_model()
    sae: Any = tiny_sae()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        sae.W_dec[:] = torch.randn(sae.W_dec.shape, generator=generator)
        sae.W_dec /= sae.W_dec.norm(dim=-1, keepdim=True)
    features = features_of(model, sae, range(20))
    kept = token_changes(model, features, PROMPTS, np.full(20, 3.0), len(VOCABULARY), n_random=32)
    every = token_changes(model, features, PROMPTS, np.full(20, 3.0), len(VOCABULARY), n_random=0)
    share = sum(len(one.promoted) for one in kept) / sum(len(one.promoted) for one in every)
    assert share < 0.15  # of directions that are random themselves about 5 %


def test_next_tokens_have_probabilities() -> None:
    from fade_lens.generation.steering import Request, Steering, decoder_for

    model: Any = tiny_model()
    features = features_of(model, tiny_sae(), [0])
    requests = [Request(prompt, None, 0.0, 0) for prompt in PROMPTS]
    found = log_probabilities(
        decoder_for(model, features, requests), Steering(model, features, requests, torch.ones(1), "add"), PROMPTS
    )
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(3))
