"""A Hugging Face cache made on the spot: models and SAEs of random weights under the names that the hub gives them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GPT2Config, PretrainedConfig

from tests.tiny import D_MODEL, VOCABULARY, word_tokenizer

COMMIT = "0" * 40
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": D_MODEL,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache in place of the user's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def snapshot(hub: Path, repository: str) -> Path:
    """The folder in which a repository's files lie."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (files := folder / "snapshots" / COMMIT).mkdir(parents=True, exist_ok=True)
    return files


def gpt2_config(**changes: Any) -> GPT2Config:
    sizes = {
        "n_layer": 2,
        "n_embd": D_MODEL,
        "n_head": 4,
        "n_positions": 64,
        "n_ctx": 64,
        "vocab_size": len(VOCABULARY),
    }
    return GPT2Config(**sizes | {"bos_token_id": 1, "eos_token_id": 2} | changes)


def publish_model(hub: Path, name: str, config: PretrainedConfig) -> None:
    """A model of random weights with the tokenizer of words."""
    files = snapshot(hub, name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        several = config.get_text_config() is not config
        model = (AutoModelForImageTextToText if several else AutoModelForCausalLM).from_config(config)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)  # norms and biases matter too
    model.save_pretrained(files)
    word_tokenizer().save_pretrained(files)


def publish_sae(hub: Path, release: str, sae_id: str, sae: SAE[Any]) -> None:
    """An SAE in SAELens' own format, where its list looks for it."""
    listed = get_pretrained_saes_directory()[release]
    sae.save_model(snapshot(hub, listed.repo_id) / listed.saes_map[sae_id])
