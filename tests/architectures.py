"""Tiny random models of several architectures, as `HookedSAETransformer` and as bridge, and tiny SAEs for them."""

from typing import Any

import torch
from sae_lens import HookedSAETransformer, StandardSAE, StandardSAEConfig, Transcoder, TranscoderConfig
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from sae_lens.saes.sae import SAEMetadata
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gemma_weights
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

VOCABULARY, CONTEXT, LAYERS, D_MODEL = 300, 64, 4, 32
SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}  # ids 0, 1, 2

SIZES: dict[str, Any] = {
    "n_layers": LAYERS,
    "d_model": D_MODEL,
    "n_heads": 4,
    "d_head": 8,
    "d_mlp": 64,
    "n_ctx": CONTEXT,
    "d_vocab": VOCABULARY,
}
ROTARY: dict[str, Any] = {"positional_embedding_type": "rotary", "rotary_dim": 8}
STANDARD: dict[str, Any] = {"positional_embedding_type": "standard"}
# What the common architectures differ in.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": STANDARD | {"act_fn": "gelu_new", "normalization_type": "LN"},
    "gpt2-folded": STANDARD | {"act_fn": "gelu_new", "normalization_type": "LNPre"},
    "pythia": ROTARY | {"act_fn": "gelu", "normalization_type": "LN", "rotary_dim": 4, "parallel_attn_mlp": True},
    "gptj": ROTARY
    | {
        "act_fn": "gelu_new",
        "normalization_type": "LNPre",
        "rotary_dim": 4,
        "rotary_adjacent_pairs": True,
        "parallel_attn_mlp": True,
    },
    "llama": ROTARY
    | {"act_fn": "silu", "normalization_type": "RMS", "final_rms": True, "gated_mlp": True, "n_key_value_heads": 2},
    "qwen-folded": ROTARY
    | {
        "act_fn": "silu",
        "normalization_type": "RMSPre",
        "gated_mlp": True,
        "use_qk_norm": True,
        "n_key_value_heads": 1,
    },
    "gemma2": ROTARY
    | {
        "act_fn": "gelu_pytorch_tanh",
        "normalization_type": "RMS",
        "use_normalization_before_and_after": True,
        "gated_mlp": True,
        "n_key_value_heads": 2,
        "use_local_attn": True,
        "window_size": 6,
        "attn_types": ["global", "local"] * 2,
        "attn_scores_soft_cap": 2.0,
        "output_logits_soft_cap": 3.0,
    },
    "attn-only": STANDARD | {"attn_only": True, "normalization_type": "LN"},
    "alibi": {"act_fn": "gelu", "normalization_type": "LN", "positional_embedding_type": "alibi"},
}


def tokenizer() -> PreTrainedTokenizerFast:
    """One word an id, `t7` for id 7, the first three special."""
    words = [*SPECIAL.values(), *(f"t{i}" for i in range(3, VOCABULARY))]
    words_to_ids = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words_to_ids, name_or_path="tiny", add_bos_token=True, **SPECIAL)


def hooked(architecture: str = "gpt2", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> HookedSAETransformer:
    """A random model in which every part matters: norms, biases and positions are random too."""
    cfg = HookedTransformerConfig(**SIZES | ARCHITECTURES[architecture], dtype=dtype)
    model = HookedSAETransformer(cfg, tokenizer=tokenizer())
    randomize(model, seed)
    return model.eval()


def randomize(module: torch.nn.Module, seed: int) -> None:
    """Random weights in place; scales of norms, which begin as ones, stay about 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim > 1 else 0.2)
            around = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
            parameter.copy_(noise + around)


def gemma3_hf(seed: int = 0) -> Gemma3ForCausalLM:
    """A random Hugging Face Gemma 3: grouped queries, qk-norm, norms before and after, local and global attention."""
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        sliding_window=6,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
        architectures=["Gemma3ForCausalLM"],
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    hf = Gemma3ForCausalLM(config).eval()
    randomize(hf, seed)
    return hf


def gpt2_hf(seed: int = 0) -> GPT2LMHeadModel:
    """A random Hugging Face GPT-2."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=D_MODEL,
        n_layer=LAYERS,
        n_head=4,
        n_positions=CONTEXT,
        architectures=["GPT2LMHeadModel"],
        bos_token_id=2,
        eos_token_id=1,
    )
    hf = GPT2LMHeadModel(config).eval()
    randomize(hf, seed)
    return hf


def bridge(hf: Any) -> SAETransformerBridge:
    """The bridge around a tiny Hugging Face model."""
    name = {"gemma3_text": "google/gemma-3-270m", "gpt2": "gpt2"}[hf.config.model_type]
    return SAETransformerBridge.boot_transformers(name, hf_model=hf, tokenizer=tokenizer(), device="cpu")


def hooked_gemma3(hf: Gemma3ForCausalLM) -> HookedSAETransformer:
    """The same weights as a `HookedSAETransformer`."""
    rotary = hf.config.rope_parameters
    cfg = HookedTransformerConfig(
        **SIZES,
        **ROTARY,
        n_key_value_heads=2,
        act_fn="gelu_pytorch_tanh",
        gated_mlp=True,
        normalization_type="RMS",
        use_normalization_before_and_after=True,
        use_qk_norm=True,
        eps=hf.config.rms_norm_eps,
        attn_scale=8**0.5,
        rotary_base=rotary["full_attention"]["rope_theta"],
        rotary_base_local=rotary["sliding_attention"]["rope_theta"],
        use_local_attn=True,
        window_size=6,
        attn_types=["local", "global"] * 2,
        original_architecture="Gemma3ForCausalLM",
    )
    model = HookedSAETransformer(cfg, tokenizer=tokenizer())
    unchanged = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False)
    model.load_and_process_state_dict(convert_gemma_weights(hf, cfg), **unchanged)
    return model.eval()


def sae_at(hook: str, *, d_in: int = D_MODEL, d_sae: int = 12, seed: int = 0, **changes: Any) -> StandardSAE:
    """A random SAE of the standard architecture at a hook."""
    metadata = SAEMetadata(hook_name=hook, prepend_bos=True, **changes.pop("metadata", {}))
    sae = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=d_sae, metadata=metadata, **changes))
    randomize(sae, seed)
    return sae


def transcoder_at(read: str, write: str, *, d_sae: int = 12, seed: int = 0) -> Transcoder:
    """A random transcoder from one hook to another."""
    metadata = SAEMetadata(hook_name=read, hook_name_out=write, prepend_bos=True)
    sizes = {"d_in": D_MODEL, "d_out": D_MODEL, "d_sae": d_sae}
    sae = Transcoder(TranscoderConfig(**sizes, apply_b_dec_to_input=False, metadata=metadata))
    randomize(sae, seed)
    return sae
