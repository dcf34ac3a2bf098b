"""A tiny random model with a tokenizer of words, and tiny SAEs of every architecture."""

from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE, HookedSAETransformer
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from sae_lens.registry import SAE_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer_lens import HookedTransformerConfig
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
ANIMALS = ["cat", "dog", "horse", "cow", "owl", "fox"]
COLOURS = ["red", "green", "blue", "yellow", "black", "white"]
VERBS = ["runs", "sleeps", "eats", "jumps", "sees", "hides"]
OTHERS = [
    "the",
    "a",
    "and",
    "in",
    "on",
    "house",
    "tree",
    "river",
    "big",
    "small",
    "old",
    "new",
    "again",
    "today",
    ".",
    ",",
]
WORDS = [*ANIMALS, *COLOURS, *VERBS, *OTHERS]
VOCABULARY = SPECIAL + WORDS
D_MODEL = 32
HOOK = "blocks.0.hook_resid_post"


def word_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def tiny_model(seed: int = 0, **overrides: Any) -> HookedSAETransformer:
    config = {
        "n_layers": 2,
        "d_model": D_MODEL,
        "n_ctx": 64,
        "d_head": 8,
        "n_heads": 4,
        "d_vocab": len(VOCABULARY),
        "act_fn": "gelu",
        "normalization_type": "LN",
        "device": "cpu",
        "model_name": "tiny",
        "seed": seed,
    } | overrides
    with torch.random.fork_rng():
        model = HookedSAETransformer(HookedTransformerConfig(**config))
    model.tokenizer = word_tokenizer()  # set_tokenizer would look for a name on a hub
    return model


def tiny_bridge(folder: Path, **options: Any) -> SAETransformerBridge:
    """A random GPT-2 behind a bridge; its tokenizer is read from `folder`, where TransformerLens looks for it again."""
    word_tokenizer().save_pretrained(folder)
    config = GPT2Config(n_layer=2, n_embd=D_MODEL, n_head=4, n_positions=64, vocab_size=len(VOCABULARY), **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = GPT2LMHeadModel(config).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return SAETransformerBridge.boot_transformers("gpt2", hf_model=hf, tokenizer=tokenizer, device="cpu")


def tiny_sae(
    architecture: str = "standard",
    *,
    d_in: int = D_MODEL,
    d_sae: int = 64,
    hook: str = HOOK,
    seed: int = 0,
    **options: Any,
) -> SAE:
    """A random SAE of any registered architecture; metadata options begin with `meta_`."""
    sae_class, config_class = SAE_CLASS_REGISTRY[architecture]
    metadata = {"hook_name": hook, "model_name": "tiny", "prepend_bos": True, "context_size": 32}
    metadata |= {k.removeprefix("meta_"): options.pop(k) for k in list(options) if k.startswith("meta_")}
    if architecture in ("topk", "abstopk"):
        options.setdefault("k", 8)
    if architecture.endswith("transcoder"):
        options = {"d_out": D_MODEL, "apply_b_dec_to_input": False} | options
    if architecture == "temporal":
        options = {"n_heads": 2, "bottleneck_factor": 2, "kval_topk": 8} | options
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, metadata=SAEMetadata(**metadata), **options))
        for name, parameter in sae.named_parameters():
            if name in ("b_enc", "b_gate", "b_mag", "r_mag", "b_dec"):
                parameter.data.normal_(0, 0.1)
            if name == "threshold":
                parameter.data.uniform_(0, 0.2)
    return sae
