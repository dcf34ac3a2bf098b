"""A tiny model in which the truth is known: latents that fire on words of one kind, and write them when steered."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sae_lens import SAE, HookedSAETransformer

from fade_lens.judge import Judge
from tests.tiny import ANIMALS, COLOURS, HOOK, OTHERS, VERBS, tiny_model, tiny_sae

CLASSES = {0: ANIMALS, 1: COLOURS, 2: VERBS}
TRUE = {0: "names of animals", 1: "names of colours", 2: "verbs"}
SHUFFLED = {0: TRUE[1], 1: TRUE[2], 2: TRUE[0]}
WORDS_OF = {TRUE[index]: set(words) for index, words in CLASSES.items()}


def planted_model() -> HookedSAETransformer:
    """Each class of words has a direction of its own: its words embed along it, and it unembeds to them."""
    model = tiny_model(n_layers=1, normalization_type=None)
    vocabulary = model.tokenizer.get_vocab()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.02)
        for index, words in CLASSES.items():
            for word in words:
                model.embed.W_E[vocabulary[word], index] = 4.0
                model.unembed.W_U[index, vocabulary[word]] = 3.0
        for place, word in enumerate(OTHERS):  # as long as the others, or these would be massive activations
            model.embed.W_E[vocabulary[word], 8 + place] = 4.0
            model.unembed.b_U[vocabulary[word]] = 3.0
    return model


def planted_sae() -> SAE:
    """Latents 0, 1, 2 read and write the directions of the three classes; latent 3 fires on nothing; the rest are random."""
    sae = tiny_sae("jumprelu", d_sae=8, hook=HOOK)
    with torch.no_grad():
        sae.b_dec.zero_()
        sae.b_enc.zero_()
        sae.threshold.fill_(1.0)
        for index in CLASSES:
            for weights in (sae.W_enc.T, sae.W_dec):
                weights[index].zero_()
                weights[index, index] = 1.0
        sae.W_enc[:, 3] = 0.0
    return sae


def natural_texts(n: int = 400, seed: int = 0) -> list[str]:
    """Texts of common words, one in sixteen with a word of each class."""
    random = np.random.default_rng(seed)
    texts: list[str] = []
    for _ in range(n):
        words = list(random.choice(OTHERS, random.integers(4, 12)))
        for members in CLASSES.values():
            if random.random() < 1 / 16:
                words[random.integers(0, len(words))] = str(random.choice(members))
        texts.append(" ".join(words))
    return texts


def rule(concept: str, text: str) -> int:
    """The true rating: 2 if the text has a word of the class."""
    return 2 if WORDS_OF.get(concept, set()) & set(text.split()) else 0


def writer(concept: str, i: int) -> list[str]:
    """Texts with a word of the class, different for every request."""
    random = np.random.default_rng(i)
    words = sorted(WORDS_OF.get(concept, set())) or ["the"]
    return [" ".join([*random.choice(OTHERS, 5), str(random.choice(words)), "."]) for _ in range(10)]


def simulator(strength: int) -> Callable[[dict[str, Any]], str | None]:
    """What says, for a fake judge, that the words of the description's class are active, as strongly as that; None for other questions."""

    def says(body: dict[str, Any]) -> str | None:
        found = re.fullmatch(r"<description>\n(.*)\n</description>\n\n<tokens>\n(.*)\n</tokens>", body["messages"][-1]["content"], re.S)  # fmt: skip
        if found is None:
            return None
        tokens = [line.split("\t")[1].strip("' ") for line in found[2].split("\n")]
        active = [at for at, token in enumerate(tokens, 1) if token in WORDS_OF.get(found[1], set())]
        return json.dumps({"active": [{"token": at, "strength": strength} for at in active]})

    return says


def judge_of(server) -> Judge:
    """A judge that asks the fake server; the key is made up and must never be seen anywhere."""
    return Judge("planted", base_url=server.base_url, api_key="sk-SECRET-planted-key")
