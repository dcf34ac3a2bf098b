"""Tiny random models of every family that SAELens' releases are of, under their names in a hub cache made on the spot."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformer_lens import loading_from_pretrained as lens
from transformers import AutoConfig, PreTrainedTokenizerFast

from tests.architectures import randomize
from tests.hub import snapshot
from tests.tiny import WORDS

D_MODEL, HEADS, D_HEAD, CONTEXT = 32, 4, 16, 64
VOCABULARY = len(WORDS) + 8  # some rows stand for no token, as in real models

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": 64,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
WIDE = SIZES | {"head_dim": D_HEAD}  # the heads together are wider than the residual stream
GPT2 = {"vocab_size": VOCABULARY, "n_embd": D_MODEL, "n_head": HEADS, "n_positions": CONTEXT, "n_ctx": CONTEXT}
GEMMA_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_VISION = {"hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "depth": 1, "out_hidden_size": D_MODEL}
LINEAR = WIDE | {f"linear_{part}_head_dim": 8 for part in ("key", "value")}
LINEAR |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# The first pattern found in a model's official name gives its class in transformers and its config.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    r"gpt2": ("GPT2LMHeadModel", GPT2),
    r"pythia": ("GPTNeoXForCausalLM", SIZES),
    r"gemma-2-": ("Gemma2ForCausalLM", WIDE),
    r"gemma-3-(270m|1b)": ("Gemma3ForCausalLM", WIDE),
    r"gemma-3-": (
        "Gemma3ForConditionalGeneration",
        {"text_config": WIDE, "vision_config": GEMMA_VISION, "mm_tokens_per_image": 4},
    ),
    r"gemma-2b": ("GemmaForCausalLM", WIDE | {"num_key_value_heads": 1}),
    r"Llama": ("LlamaForCausalLM", SIZES),
    r"Mistral": ("MistralForCausalLM", SIZES),
    r"Qwen2\.5": ("Qwen2ForCausalLM", SIZES),
    r"Qwen3-.*A3B": ("Qwen3MoeForCausalLM", WIDE | EXPERTS),
    r"Qwen3-": ("Qwen3ForCausalLM", WIDE),
    r"Qwen3\.5-.*A3B": (
        "Qwen3_5MoeForConditionalGeneration",
        {"text_config": LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16}, "vision_config": QWEN_VISION},
    ),
    r"Qwen3\.5": ("Qwen3_5ForConditionalGeneration", {"text_config": LINEAR, "vision_config": QWEN_VISION}),
    r"gpt-oss": ("GptOssForCausalLM", WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
}


def family(model: str) -> tuple[str, dict[str, Any]]:
    """Class and config of a model by its official name."""
    return next(found for pattern, found in FAMILIES.items() if re.search(pattern, model))


@cache
def official(model: str) -> str:
    """A model's name on the hub."""
    try:
        return lens.get_official_model_name(model)
    except ValueError:
        return model


def write_model(hub: Path, model: str, layers: int) -> None:
    """A random model of the named one's architecture, with a tokenizer that begins and ends texts as its own does."""
    name, options = family(model)
    model_class = getattr(transformers, name)
    if "text_config" in options:
        options = options | {"text_config": options["text_config"] | {"num_hidden_layers": layers}}
    else:
        options = options | {"num_hidden_layers": layers}
    made = model_class(model_class.config_class(**options))
    randomize(made, seed=0)
    made.save_pretrained(snapshot(hub, model))
    special = {"eos_token": "<eos>", "unk_token": "<unk>"}
    if not re.search("Qwen|gpt-oss", model):  # these have no BOS; GPT-2's and Pythia's is their EOS
        special["bos_token"] = "<eos>" if re.search("gpt2|pythia", model) else "<bos>"
    words = [*dict.fromkeys(special.values()), *WORDS]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(snapshot(hub, model))


def sizes(model: str) -> dict[str, Any]:
    """The sizes in a model's config file, by TransformerLens' names."""
    config = AutoConfig.from_pretrained(model).get_text_config()
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    found = {
        "d_model": config.hidden_size,
        "d_head": d_head,
        "rotary_dim": d_head,
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": getattr(config, "num_key_value_heads", None),
        "d_mlp": getattr(config, "intermediate_size", None),
        "n_layers": config.num_hidden_layers,
        "n_ctx": config.max_position_embeddings,
        "d_vocab": config.vocab_size,
    }
    if kinds := getattr(config, "layer_types", None):
        found["attn_types"] = ["local" if kind == "sliding_attention" else "global" for kind in kinds]
    return found
