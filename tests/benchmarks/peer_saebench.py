"""SAEBench's own autointerp evaluation on the job that `parity_peers.py` sends; runs in SAEBench's environment.

JSON in: contexts as words with the activations of some latents, their descriptions, and what to ask about; its client finds the judge's server
by the environment. JSON out: what its `run` gives. The model is injected: token ids are numbers of places, so that windows that share a place
are seen.
"""

import asyncio
import json
import random
import sys
from typing import Any

import torch
from sae_bench.evals.autointerp import main
from sae_bench.evals.autointerp.eval_config import AutoInterpEvalConfig

job: dict[str, Any] = json.load(sys.stdin)
activations = torch.tensor(job["activations"])  # context, position, latent
places = torch.arange(activations[..., 0].numel()).reshape(activations.shape[:2])
main.activation_collection.collect_sae_activations = lambda *_, selected_latents, **__: activations[
    ..., selected_latents
]


class Model:
    """Tells the words at some places."""

    def to_str_tokens(self, at: Any) -> list[str]:
        return [f" {job['words'][int(i)]}" for i in at]


class Sae:
    """What its code looks up before the injected activations are taken."""

    class cfg:
        hook_layer, hook_name = 0, ""


def evaluation(latents: list[int], seed: int = 0) -> Any:
    random.seed(seed)
    torch.manual_seed(seed)
    config = AutoInterpEvalConfig(override_latents=latents, n_latents=None, llm_batch_size=1)
    return main.AutoInterp(config, Model(), Sae(), places, torch.ones(activations.shape[-1]), "cpu", "sk-made-up")


def run(descriptions: dict[str, str], seed: int) -> Any:
    """What it finds for given descriptions, or the error that ended it."""
    given = {int(latent): text for latent, text in descriptions.items()}
    try:
        found = asyncio.run(evaluation(list(given), seed).run(given))
    except Exception as error:
        return type(error).__name__
    return {latent: {key: one[key] for key in ("explanation", "score", "predictions", "correct seqs")} for latent, one in found.items()}  # fmt: skip


shown, scored = evaluation(job["latents"]).gather_data()
read = {latent: {at for one in some for at in one.toks} for latent, some in shown.items()}
tested = {latent: [one for one in some if one.is_active] for latent, some in scored.items()}
out = {
    "runs": [run(descriptions, seed) for seed, descriptions in enumerate(job["runs"])],
    "shared": {
        latent: [sum(bool(read[latent] & {*one.toks}) for one in some), len(some)] for latent, some in tested.items()
    },
}
json.dump(out, sys.stdout)
