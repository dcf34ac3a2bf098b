"""Runs the reference's whole pipeline; `parity.py` starts it in the reference's own environment (fade_lens is not there).

A job as JSON on stdin (see `parity.reference`), a record a description as JSON on stdout. The reference hooks modules of a
Hugging Face model, so the SAE is made one here.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from fade.pipeline import EvaluationPipeline
from fade.results import GenerateResults
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer


class Latents(nn.Module):
    """The encoder of a JumpReLU SAE; the reference reads and overwrites what it returns."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        for name, weight in load_file(folder / "sae_weights.safetensors").items():
            self.register_buffer(name, weight.float())

    def forward(self, x: Tensor) -> Tensor:
        before = x @ self.W_enc + self.b_enc
        return before.relu() * (before > self.threshold)


def splice(model: Any, latents: Latents, layer: int) -> None:
    """Let `model.latents` see the layer's output, and add to it what a hook changes: x + decode(after) − decode(before).

    Without a hook the model is therefore the unsteered one, exactly. It holds at every position of every forward pass, cached
    decoding steps included.
    """
    model.latents = latents

    def through_latents(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        before = latents.forward(output)  # no hook acts here
        after = latents(output)
        return output + (after - before) @ latents.W_dec

    model.model.layers[layer].register_forward_hook(through_latents)


def records(job: dict[str, Any]) -> list[dict[str, Any]]:
    """What the reference finds for each description."""
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["model"], local_files_only=True)
    # The reference calls generate() without a word on how to choose tokens.
    model.generation_config.do_sample = False
    model.generation_config.suppress_tokens = job["never_generated"]
    splice(model, Latents(Path(job["sae"])), job["layer"])
    check(model, tokenizer, job)
    found: list[dict[str, Any]] = []
    observe(found)
    pipeline = EvaluationPipeline(
        model, tokenizer, dict(enumerate(job["texts"])), torch.device("cpu"), config(job), seed=0
    )
    for description in job["descriptions"]:
        scores = pipeline.run("latents", description["latent"], description["concept"])
        names = ("clarity", "responsiveness", "purity", "faithfulness")
        found[-1] |= description | dict(zip(names, map(number, scores), strict=True))
    return found


def check(model: Any, tokenizer: Any, job: dict[str, Any]) -> None:
    """BOS comes first, and no latent fires on it: the reference counts BOS in the maximum, fade_lens never does."""
    ids = tokenizer(job["texts"][0], return_tensors="pt")["input_ids"]
    if ids[0, 0] != tokenizer.bos_token_id:
        sys.exit("the tokenizer puts no BOS in front")
    seen: list[Tensor] = []
    handle = model.latents.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(ids)
    handle.remove()
    chosen = sorted({description["latent"] for description in job["descriptions"]})
    firing = [i for i in chosen if seen[0][0, 0, i] != 0]
    if firing:
        sys.exit(f"latents {firing} fire on BOS; choose others")


def config(job: dict[str, Any]) -> dict[str, Any]:
    """The reference's settings: its defaults but for the judge, the size of the experiment and the factors."""
    n = len(job["texts"])
    return {
        "subjectLLM": {"sae_module": True, "batch_size": 17},
        "evaluationLLM": {"type": "openai", "name": "rule", "api_key": "none", "base_url": job["base_url"]},
        "experiments": {
            "responsiveness_and_purity": {"num_samples": n},
            "faithfulness": {
                "num_samples": n,
                "modification_factors": job["factors"],
                "generation_length": job["new_tokens"],
            },
        },
    }


def observe(found: list[dict[str, Any]]) -> None:
    """Note what the reference computes its scores from, on the way to its own functions."""
    scored, steered = GenerateResults.activation_centric_results, GenerateResults.output_centric_results

    def activation_centric(self: Any, **given: Any) -> Any:
        written = [text for _, text in given["synthetic_dataset"]]
        ratings = given["natural_ratings"]
        found.append(
            {
                "natural": given["natural_activations"].tolist(),
                "written": dict(zip(written, given["synthetic_activations"].tolist(), strict=True)),
                "ratings": [ratings[str(i)] for i in range(len(ratings))],
                "continuations": {},
            }
        )
        return scored(self, **given)

    def output_centric(self: Any, sequences: Any, ratings: Any) -> Any:
        found[-1]["continuations"] = {
            f"{factor:g}": [texts[i] for i in range(len(texts))] for factor, texts in sequences.items()
        }
        return steered(self, sequences, ratings)

    GenerateResults.activation_centric_results = activation_centric
    GenerateResults.output_centric_results = output_centric


def number(value: Any) -> float | None:
    return None if value is None else float(value)


if __name__ == "__main__":
    torch.set_num_threads(2)
    json.dump(records(json.load(sys.stdin)), sys.stdout)
