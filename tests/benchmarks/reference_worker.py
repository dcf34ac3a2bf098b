"""Times the reference's parts, on request; runs in the reference's own environment (fade_lens is not there).

Arguments: the model's folder and the SAE's, the hook's layer, threads. A job a line as JSON on stdin, what it took a line on
stdout:
    {"natural": texts, "latent": i}                      the reference's natural activations of one feature
    {"run": settings, "texts": texts, "latent": i, ...}  its whole pipeline for one feature, by part
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from fade.pipeline import ActivationCentricPipeline, EvaluationPipeline, OutputCentricPipeline
from reference_run import Latents, splice
from transformers import AutoModelForCausalLM, AutoTokenizer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

NO_JUDGE = {"evaluationLLM": {"type": "openai", "name": "none", "api_key": "none", "base_url": "http://127.0.0.1:9/v1"}}


@torch.no_grad()
def natural(model: Any, tokenizer: Any, job: dict[str, Any]) -> dict[str, float]:
    """Seconds of one feature's natural activations, with the batch of 4 that the reference has by default."""
    pipeline = EvaluationPipeline(model, tokenizer, dict(enumerate(job["natural"])), DEVICE, NO_JUDGE, seed=0)
    part = ActivationCentricPipeline(pipeline)
    hooks, activations_of = part.hook_lm("latents", job["latent"])
    pipeline.prepare_tokenizer(padding_side="right")
    started = time.perf_counter()
    part.generate_activations(activations_of, pipeline.dataset)
    seconds = time.perf_counter() - started
    hooks.remove_hook(name="latents")
    return {"seconds": seconds}


def run(model: Any, tokenizer: Any, job: dict[str, Any]) -> dict[str, float]:
    """Seconds of a whole run for one feature, and of its natural activations and its steering."""
    parts = {"natural": 0.0, "steering": 0.0}
    activations, sequences = (
        ActivationCentricPipeline.generate_activations,
        OutputCentricPipeline.batch_generate_sequences,
    )

    def timed_activations(self: Any, function: Any, dataset: Any) -> Any:
        started = time.perf_counter()
        found = activations(self, function, dataset)
        if dataset is self.pipeline.dataset:
            parts["natural"] += time.perf_counter() - started
        return found

    def timed_sequences(self: Any, function: Any, loader: Any) -> Any:
        started = time.perf_counter()
        found = sequences(self, function, loader)
        parts["steering"] += time.perf_counter() - started
        return found

    ActivationCentricPipeline.generate_activations = timed_activations
    OutputCentricPipeline.batch_generate_sequences = timed_sequences
    pipeline = EvaluationPipeline(model, tokenizer, dict(enumerate(job["texts"])), DEVICE, job["run"], seed=0)
    started = time.perf_counter()
    try:
        pipeline.run("latents", job["latent"], job["concept"])
    finally:
        ActivationCentricPipeline.generate_activations = activations
        OutputCentricPipeline.batch_generate_sequences = sequences
    return {"seconds": time.perf_counter() - started} | parts


def void(_: Any) -> None:
    """What a forward hook returns that changes nothing."""


def main() -> None:
    folder, sae, layer, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval().to(DEVICE)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model.generation_config.do_sample = False
    latents = Latents(Path(sae)).to(DEVICE, torch.float32)  # kept in half precision on disk
    model.latents = latents
    hook = model.model.layers[int(layer)].register_forward_hook(lambda module, inputs, output: void(latents(output)))
    answers = sys.stdout
    sys.stdout = sys.stderr  # the reference prints
    for line in sys.stdin:
        job = json.loads(line)
        if "natural" in job:
            found = natural(model, tokenizer, job)
        else:
            hook.remove()
            if not hasattr(model, "spliced"):
                splice(model, latents, int(layer))
                model.spliced = True
            found = run(model, tokenizer, job)
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
