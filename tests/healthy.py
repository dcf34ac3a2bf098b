"""A tiny model built by hand, and an SAE of it that is right: what each mistake in using it does is known.

Words follow one another in a circle, which the model knows: it carries a word's direction through three blocks, each of which turns it into
another subspace, and unembeds it to the next word. BOS adds a direction to every later token. The SAE of the second block has a latent a word.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAE, HookedSAETransformer
from torch import Tensor

from tests.tiny import OTHERS, tiny_model, tiny_sae

D_MODEL, LENGTH, LAYER = 64, 8.0, 1
WORDS = OTHERS[:16]
HOOK = f"blocks.{LAYER}.hook_resid_post"


@dataclass(frozen=True)
class Directions:
    """At right angles to one another and to the mean: each word's after each block, what BOS is, and what it adds to other tokens."""

    words: Float[Tensor, "block word d_model"]
    bos: Float[Tensor, " d_model"]
    added: Float[Tensor, " d_model"]


def directions(seed: int = 0) -> Directions:
    """They differ by seed."""
    random = torch.randn(D_MODEL, D_MODEL - 1, generator=torch.Generator().manual_seed(seed))
    random = torch.cat([torch.ones(D_MODEL, 1), random], dim=1)
    basis = torch.linalg.qr(random).Q.T[1:]
    n = len(WORDS)
    return Directions(torch.stack([basis[n * block : n * (block + 1)] for block in range(3)]), basis[-1], basis[-2])


def healthy_model(seed: int = 0, *, centred: bool = True, **overrides: Any) -> HookedSAETransformer:
    """The model; not `centred`, each word's embedding has a mean, as in a model loaded without `center_writing_weights`."""
    model = tiny_model(n_layers=3, d_model=D_MODEL, d_head=D_MODEL, n_heads=2, d_mlp=8, **overrides)
    at, vocabulary = directions(seed), model.tokenizer.get_vocab()
    ids = [vocabulary[word] for word in WORDS]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith("ln1.w") or name.endswith("ln_final.w") else 0.0)
        model.embed.W_E[ids] = (LENGTH * at.words[0] + (0.0 if centred else LENGTH / D_MODEL**0.5)).to(model.W_E)
        model.embed.W_E[vocabulary["<bos>"]] = (LENGTH * at.bos).to(model.W_E)
        first = model.blocks[0].attn  # its second head attends to BOS, and writes what BOS adds
        first.b_Q[1, 0] = 50.0
        first.W_K[1, :, 0] = at.bos.to(model.W_E)
        first.W_V[1] = torch.outer(at.bos, at.added).to(model.W_E)
        first.W_O[1] = (torch.eye(D_MODEL) / D_MODEL**0.5 * LENGTH).to(model.W_E)
        read = LENGTH / (LENGTH * 2**0.5 / D_MODEL**0.5)  # a word's direction behind the norm, beside what BOS adds
        for block in (1, 2):
            attn, before, after = model.blocks[block].attn, at.words[block - 1], at.words[block]
            attn.W_Q[0] = attn.W_K[0] = 2 * (before.T @ before).to(model.W_E)  # a token attends to itself
            attn.W_V[0] = (before.T @ (after - before)).to(model.W_E)
            attn.W_O[0] = (torch.eye(D_MODEL) * LENGTH / read).to(model.W_E)
        model.unembed.W_U[:, ids[1:] + ids[:1]] = 2 * at.words[2].T.to(model.W_E)
    return model


def healthy_sae(seed: int = 0, *, noise: float = 0.02, **metadata: Any) -> SAE:
    """The SAE of the second block: a latent a word, and eight that never fire. Its latents need what BOS adds, and no mean."""
    sae, at = tiny_sae("jumprelu", d_in=D_MODEL, d_sae=24, hook=HOOK, apply_b_dec_to_input=False), directions(seed)
    words, n = at.words[LAYER], len(WORDS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        sae.threshold.fill_(LENGTH / 2)
        sae.b_enc.fill_(-LENGTH)
        sae.W_enc[:, :n] = (words + at.added - 1 / D_MODEL**0.5).T
        sae.W_enc[:, n:] = 0.0
        sae.W_dec[:n] = words + noise * torch.randn(n, D_MODEL, generator=generator)
        sae.b_dec.copy_(LENGTH * at.added)
    asked = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    for key, value in (asked | metadata).items():
        sae.cfg.metadata[key] = value
    return sae


def healthy_transcoder(layer: int = LAYER, seed: int = 0) -> SAE:
    """One of the same block's attention, from the residual stream before it; at another `layer` it is out of place."""
    hooks = {"hook": f"blocks.{layer}.hook_resid_pre", "meta_hook_name_out": f"blocks.{layer}.hook_attn_out"}
    sae, at, n = tiny_sae("jumprelu_transcoder", d_in=D_MODEL, d_out=D_MODEL, d_sae=24, **hooks), directions(seed), len(WORDS)  # fmt: skip
    with torch.no_grad():
        sae.threshold.fill_(LENGTH / 2)
        sae.b_enc.fill_(-LENGTH)
        sae.b_dec.zero_()
        sae.W_enc.zero_()
        sae.W_enc[:, :n] = (at.words[LAYER - 1] + at.added - 1 / D_MODEL**0.5).T
        sae.W_dec[:n] = at.words[LAYER] - at.words[LAYER - 1]
    sae.cfg.metadata.model_from_pretrained_kwargs = {"center_writing_weights": True}
    return sae


def circular_texts(n: int = 60, seed: int = 0) -> list[str]:
    """Texts in which words follow one another as the model has it."""
    random = np.random.default_rng(seed)
    begins, lengths = random.integers(0, len(WORDS), n), random.integers(4, 12, n)
    return [" ".join(WORDS[(b + i) % len(WORDS)] for i in range(m)) for b, m in zip(begins, lengths, strict=True)]
