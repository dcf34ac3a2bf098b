"""The scoring of `automated-interpretability` (OpenAI's, Neuronpedia's fork) on the job that `parity_peers.py` sends; runs in its environment.

JSON in: windows with tokens, true activations and the strengths that the judge gave, and answers in the form that its simulator without
log-probabilities reads. JSON out: its scores. Simulator and client are injected.
"""

import asyncio
import json
import math
import sys
from typing import Any

from neuron_explainer.activations.activations import ActivationRecord
from neuron_explainer.explanations.explanations import ActivationScale, SequenceSimulation
from neuron_explainer.explanations.scoring import simulate_and_score
from neuron_explainer.explanations.simulator import LogprobFreeExplanationTokenSimulator, NeuronSimulator

job: list[dict[str, Any]] = json.load(sys.stdin)
records = [ActivationRecord(window["tokens"], window["activations"]) for window in job]


class Known(NeuronSimulator):
    """Says what the judge said, or 0 everywhere."""

    def __init__(self, said: bool) -> None:
        self.windows, self.said = iter(job), said

    async def simulate(self, tokens: Any) -> Any:
        values = next(self.windows)["predicted"] if self.said else [0.0] * len(tokens)
        return SequenceSimulation(list(tokens), values, ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS, [], [])


class Answers:
    """A client that gives the written answers in turn."""

    def __init__(self) -> None:
        self.windows = iter(job)

    async def make_request(self, **_: Any) -> Any:
        return {"choices": [{"message": {"content": next(self.windows)["answer"]}}]}


def score(simulator: Any) -> float | None:
    value = float(asyncio.run(simulate_and_score(simulator, records)).ev_correlation_score)
    return None if math.isnan(value) else value


read = LogprobFreeExplanationTokenSimulator("none", "animals")
read.api_client = Answers()
json.dump({"correlation": score(Known(True)), "constant": score(Known(False)), "answers": score(read)}, sys.stdout)
