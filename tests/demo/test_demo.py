"""The demo's parts, with the real model: what the README's first command rests on."""

import numpy as np
import pytest
import torch

from fade_lens import Subject, demo
from fade_lens.data.descriptions import read_descriptions
from fade_lens.subject.tokens import tokenize


def test_the_data_is_whole():
    assert len(demo.corpus()) > 3000
    assert len(demo.descriptions()) == 48
    assert len(read_descriptions(demo.DESCRIPTIONS)) >= 4


@pytest.mark.real
def test_the_model_is_the_real_one(gemma):
    """It finds its own samples likely (1.8 nats a token); a broken load does not (12.5 is chance)."""
    texts = tokenize(gemma, demo.corpus(limit=8), context=48, prepend_bos=True)
    with torch.no_grad():
        losses = [
            float(gemma(torch.tensor(texts[i][None]), return_type="loss", padding_side="right")) for i in range(8)
        ]
    assert sum(losses) / len(losses) < 3


@pytest.mark.real
def test_the_sae_fits_the_model_and_fires_as_described(gemma, demo_sae):
    """The strongest text of each latent shows what its description says, but for the one that is wrong on purpose."""
    subject = Subject(gemma, demo_sae, demo.corpus(limit=160), list(demo.DESCRIPTIONS))
    for index, text in demo.DESCRIPTIONS.items():
        word = text.split('"')[1]
        strongest = subject.tokens.texts[int(np.argmax(subject.natural(index)))]
        assert (word.lower() in strongest.lower()) == (index != 4005), (index, word, strongest)
    assert 0 < subject.activations.firing_rate.max() < 0.1
