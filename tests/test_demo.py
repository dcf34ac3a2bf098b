"""The demo's parts, with the real model: what the README's first command rests on."""

import numpy as np
import pytest
import torch

from fade_lens import Subject, demo
from fade_lens.descriptions import read_descriptions


def test_the_data_is_whole():
    assert len(demo.corpus()) > 3000
    assert len(demo.descriptions()) == 48
    true = {d.index: d.text for d in demo.descriptions()}
    wrong = [index for index, text in demo.DESCRIPTIONS.items() if true[index] != text]
    assert wrong == [951], "one description of the demo is wrong on purpose, the others are the files'"
    assert len(read_descriptions(demo.DESCRIPTIONS)) >= 4


@pytest.mark.real
def test_the_model_is_the_real_one(gemma):
    """It finds its own samples likely (1.8 nats a token); a broken load does not (12.5 is chance)."""
    texts = demo.corpus(limit=8).tokenize(gemma, context=48, prepend_bos=True)
    with torch.no_grad():
        losses = [
            float(gemma(torch.tensor(texts[i][None]), return_type="loss", padding_side="right")) for i in range(8)
        ]
    assert sum(losses) / len(losses) < 3


@pytest.mark.real
def test_the_sae_fits_the_model_and_fires_as_described(gemma, demo_sae):
    """The strongest text of each of some latents shows what its description says."""
    shows = {98: "good", 4005: "here", 3609: "import"}
    subject = Subject(gemma, demo_sae, demo.corpus(limit=300), list(shows))
    for index, word in shows.items():
        strongest = int(np.argmax(subject.natural(index)))
        assert word in subject.tokens.texts[strongest].lower(), (index, subject.tokens.texts[strongest])
    assert 0 < subject.activations.firing_rate.max() < 0.1
