"""How long evidence takes beside the pass and the embedding: windows by strata and six kinds of negatives, 100,000 windows × 1,000 features.

    python -m tests.benchmarks.evidence [--windows 100000] [--features 1000]

Activations and embeddings are made up; the neighbours are other features of the same.
"""

import argparse
import resource
import time

import numpy as np

from fade_lens import Corpus, Subject
from fade_lens.evidence.negatives import KINDS, Negatives
from fade_lens.evidence.windows import Draw, Evidence
from fade_lens.subject.activations import MaxActivations
from tests.tiny import tiny_model, tiny_sae

TOKENS, SHOWN, TESTED, DIMENSIONS, WORDS = 32, 40, 50, 384, 50_000


def made_up(n: int, features: int, random: np.random.Generator) -> MaxActivations:
    """Activations of which a thousandth to a tenth are not zero, feature by feature."""
    values = np.zeros((features, n), dtype=np.float32)
    positions = random.integers(1, TOKENS + 1, (features, n)).astype(np.int32)
    for row in values:
        some = random.choice(n, int(n * 10 ** random.uniform(-3, -1)), replace=False)
        row[some] = random.exponential(size=len(some))
    counted = np.full(n, TOKENS, dtype=np.int64)
    return MaxActivations(values.T, positions.T, counted, np.ones(features, dtype=np.int64), 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1000)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    rows = np.minimum(random.zipf(1.2, (given.windows, TOKENS)) + 4, WORDS - 1).tolist()
    model, sae = tiny_model(d_vocab=WORDS), tiny_sae(d_sae=given.features)
    subject = Subject(model, sae, Corpus.from_tokens(rows), range(given.features))
    subject.observe(made_up(given.windows, given.features, random))
    vectors = random.normal(size=(given.windows, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = {i: tuple((i + 1 + np.arange(5)) % given.features) for i in range(given.features)}

    def told(what: str, began: float) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        busy, memory = used.ru_utime + used.ru_stime - spent, used.ru_maxrss / 2**20
        print(
            f"{what}\n    {time.perf_counter() - began:7.1f} s, {busy:.0f} s of processors since the start, {memory:.2f} GiB at most"
        )

    before = resource.getrusage(resource.RUSAGE_SELF)
    spent = before.ru_utime + before.ru_stime
    whole = began = time.perf_counter()
    evidence = Evidence(subject)
    sizes = [len(evidence.texts(role)) for role in ("show", "refine", "select", "test")]
    told(f"roles {sizes}", began)
    began = time.perf_counter()
    shown = evidence.active("show", Draw(SHOWN))
    tested = evidence.active("test", Draw(TESTED))
    told("windows by strata, to show and to test", began)
    negatives = Negatives(evidence, vectors=vectors, neighbours=(subject, near))
    began = time.perf_counter()
    found = negatives.draw("test", TESTED, KINDS, exemplars=shown)
    told(", ".join(f"{kind} {sum(len(one[kind]) for one in found.values()):,}" for kind in KINDS), began)
    told(f"all of it ({sum(map(len, tested.values())):,} positives)", whole)


if __name__ == "__main__":
    main()
