"""Delphi's own samplers, constructors, scorers and analysis on the job that `parity_peers.py` sends; runs in Delphi's environment.

JSON in: texts as token ids (`ids`) with one latent's activations, the words of the ids, judged windows, and the server of the judge. JSON out:
what Delphi makes of them. The embedding model is a stand-in; what is only imported (vLLM and others) is empty.
"""

import asyncio
import json
import sys
from typing import Any
from urllib.request import Request, urlopen

import faiss
import torch
from delphi.clients.client import Client, Response
from delphi.config import ConstructorConfig, SamplerConfig
from delphi.explainers.contrastive_explainer import ContrastiveExplainer
from delphi.explainers.default.default import DefaultExplainer
from delphi.latents import (
    ActivatingExample,
    Latent,
    LatentRecord,
    NonActivatingExample,
    constructor,
    constructors,
    sampler,
)
from delphi.latents.cache import check_single_feature
from delphi.latents.latents import ActivationData
from delphi.log.result_analysis import compute_auc, compute_classification_metrics, compute_confusion
from delphi.scorers import DetectionScorer, EmbeddingScorer, FuzzingScorer, IntruderScorer
from pandas import DataFrame
from sentence_transformers import SentenceTransformer

CONTEXT, WINDOW = 256, 32
job: dict[str, Any] = json.load(sys.stdin)
tokens, activations = (
    torch.tensor(job["ids"]).reshape(-1, CONTEXT),
    torch.tensor(job["activations"]).reshape(-1, CONTEXT),
)


class Words:
    """A tokenizer of words."""

    def batch_decode(self, ids: Any) -> list[str]:
        return [f" {job['words'][int(i)]}" for i in ids]


class Encoder:
    """The stand-in as Delphi calls it; of a query it reads what follows the instruction."""

    def encode(self, texts: Any, **_: Any) -> Any:
        read = [text.rpartition("Query:")[2] for text in ([texts] if isinstance(texts, str) else texts)]
        rows = SentenceTransformer("").encode(read, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return rows[0] if isinstance(texts, str) else rows

    def similarity(self, query: Any, rows: Any) -> Any:
        return torch.tensor(rows @ query)[None]


class Asking(Client):
    """Asks the judge's server; keeps what it was asked about."""

    def __init__(self) -> None:
        super().__init__("rule")
        self.texts: list[str] = []

    async def generate(self, prompt: Any, **_: Any) -> Response:
        self.texts += [
            line.partition(": ")[2] for line in prompt[-1]["content"].split("\n") if line.startswith("Example ")
        ]
        data = json.dumps({"model": "rule", "messages": prompt}).encode()
        with urlopen(
            Request(f"{job['base_url']}/chat/completions", data, {"Content-Type": "application/json"})
        ) as reply:
            return Response(json.load(reply)["choices"][0]["message"]["content"])


def example(window: dict[str, Any]) -> Any:
    """A judged window as one of Delphi's, active where it has marks."""
    values = torch.zeros(len(window["words"]))
    values[window["marks"]] = 1.0
    words = [f" {word}" for word in window["words"]]
    whole: dict[str, Any] = {"tokens": torch.zeros(len(words)), "activations": values, "str_tokens": words}
    return ActivatingExample(**whole) if window["positive"] else NonActivatingExample(**whole, distance=-1.0)


def record_of(windows: list[dict[str, Any]]) -> LatentRecord:
    made = [example(window) for window in windows]
    record = LatentRecord(Latent("made up", 0), explanation=job["description"])
    record.test = [one for one in made if isinstance(one, ActivatingExample)]
    record.not_active = [one for one in made if isinstance(one, NonActivatingExample)]
    return record


def scored(kind: Any, record: LatentRecord, size: int = 5) -> dict[str, Any]:
    """What its analysis says of a scorer's decisions."""
    client = Asking()
    found = asyncio.run(kind(client, n_examples_shown=size)(record)).score
    frame = DataFrame([{"activating": one.activating, "prediction": one.prediction} for one in found])
    confusion = compute_confusion(frame)
    numbers = {key: float(value) for key, value in (confusion | compute_classification_metrics(confusion)).items()}
    rows = [{"text": text, "positive": one.activating} for text, one in zip(client.texts, found, strict=False)]
    return numbers | {"undecided": int(frame.prediction.isna().sum()), "n": len(frame), "asked": rows}


def built(**settings: Any) -> LatentRecord:
    """Examples and negatives of the latent."""
    at = activations.nonzero()
    data = ActivationData(torch.cat([at, torch.zeros(len(at), 1, dtype=at.dtype)], 1), activations[at[:, 0], at[:, 1]])
    config = ConstructorConfig(faiss_embedding_cache_enabled=False, example_ctx_len=WINDOW, **settings)
    record = LatentRecord(Latent("made up", 0), explanation=job["description"])
    return constructor(record, data, config, tokens, Words())


def raised(call: Any) -> str:
    try:
        return str(call())
    except Exception as error:
        return type(error).__name__


out: dict[str, Any] = {name: scored(kind, record_of(job[name])) for name, kind in (("detection", DetectionScorer), ("fuzzing", FuzzingScorer))}  # fmt: skip
found = asyncio.run(EmbeddingScorer(Encoder())(record_of(job["embedding"]))).score
near = DataFrame([{"activating": one.distance >= 0, "probability": one.similarity} for one in found])
out["embedding"] = compute_auc(near)
failing = record_of(job["detection"])
failing.explanation = "unanswered"
out["failing"] = scored(DetectionScorer, failing)
out["short"] = scored(DetectionScorer, record_of(job["detection"][:-2]))

constructors.model_cache[(ConstructorConfig().faiss_embedding_model, "cuda")] = Encoder()
search, searches = faiss.IndexFlatL2.search, []
faiss.IndexFlatL2.search = lambda *given: searches.append(1) or search(*given)
near = built(non_activating_source="FAISS", n_non_activating=50)
shown = ["".join(Words().batch_decode(one.tokens)) for one in near.examples[:10]]
out["faiss"] = {
    "searches": len(searches),
    "shown": shown,
    "texts": ["".join(one.str_tokens) for one in near.not_active],
}

record = sampler(built(n_non_activating=50), SamplerConfig(), Words())
shown = {id(one) for one in record.train}
out["shared"] = [sum(id(one) in shown for one in record.test), len(record.test)]
out["contrastive"] = raised(lambda: asyncio.run(ContrastiveExplainer(Asking())(record)))
unread = asyncio.run(DefaultExplainer(Asking())(record))
out["unread"] = unread.explanation
many = sampler(built(n_non_activating=400), SamplerConfig(n_examples_test=400), Words())
out["marks"] = scored(FuzzingScorer, many)["asked"]
for centred in (True, False):
    some = built(center_examples=centred).examples
    out[f"peaks, center_examples={centred}"] = sorted({int(one.activations.argmax()) for one in some}), len(some)
given = [
    {"words": ["a"] * WINDOW, "marks": at, "positive": positive}
    for at, positive in (([3], True), ([5], False), ([], False))
]
out["all marked"] = max(
    text["text"].count(" a")
    for text in scored(FuzzingScorer, record_of(given), 3)["asked"]
    if text["text"].startswith("<<")
)
out["intruder"] = raised(lambda: asyncio.run(IntruderScorer(Asking())(record_of(job["detection"]))).score)
strong, weak = torch.linspace(2, 3, 200), torch.linspace(0, 1, 60)
both = torch.cat([torch.zeros(200, dtype=torch.long), torch.arange(1, 61)])
out["single token"] = [
    int(any(check_single_feature(torch.cat(order), both))) for order in ((strong, weak), (3 - strong, 3 - weak))
]
json.dump(out, sys.stdout)
