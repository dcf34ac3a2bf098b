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
    """Gemma knows what comes next; a broken load does not."""
    tokens = torch.tensor([[2, *gemma.tokenizer("The capital of France is", add_special_tokens=False).input_ids]])
    with torch.no_grad():
        logits = gemma(tokens)[0, -1]
    assert gemma.tokenizer.decode([int(logits.argmax())]).strip() == "Paris"


@pytest.mark.real
def test_the_sae_fits_the_model_and_fires_as_described(gemma, demo_sae):
    """The strongest text of each of some latents shows what its description says."""
    shows = {98: "good", 951: "especially", 4005: "here", 3609: "import", 2970: "Iraq"}
    subject = Subject(gemma, demo_sae, demo.corpus(limit=600), list(shows))
    for index, word in shows.items():
        natural = subject.natural(index)
        strongest = np.argsort(-natural)[:5]
        hits = [word.lower() in subject.tokens.texts[i].lower() for i in strongest if natural[i] > 0]
        assert sum(hits) >= 0.6 * len(hits) > 0, (word, hits)
    assert 0 < subject.activations.firing_rate.max() < 0.1
