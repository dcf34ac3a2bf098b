"""All four metrics end to end against the reference: same model, SAE, texts and judge, greedy decoding, clamp steering.

    python -m tests.benchmarks.parity --python REFERENCE_ENV/bin/python     an environment with fade-language
    python -m tests.benchmarks.parity                                       makes one (pip, a temporary folder)

Both packages ask one server, which rates by a rule (`tests.fake_judge.mentions`) and writes a fixed list of texts. Fails above
1e-9. `--write` stores the reference's numbers in `tests/assets/parity_golden.json` beside the case they belong to (some of its
descriptions are wrong on purpose); `tests/runs/test_parity.py` reads them.

What makes the two comparable: here `preset="paper"` and no outlier rule; all texts are rated and all are prompts, whole, as the
reference continues whole texts; the latents are silent on BOS, which the reference would count; the SAE stands in the reference's
model with its error term; special tokens are never generated (see `reference_run.py`).
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import SAE

from fade_lens import Fade, Judge, demo
from fade_lens.data.descriptions import Description
from fade_lens.demo.parts import DATA, gemma_folder
from fade_lens.generation.steering import never_generated
from fade_lens.judge import Prompts
from fade_lens.runs.results import Result
from fade_lens.subject.hooks import Model
from tests.benchmarks.parity_metrics import REFERENCE, environment
from tests.fake_judge import FakeJudge

GOLDEN = Path(__file__).parents[1] / "assets" / "parity_golden.json"
METRICS = ("clarity", "responsiveness", "purity", "faithfulness")
TOLERANCE = 1e-9

Record = dict[str, Any]
"""A description's latent, concept and four scores, and what they came from: `natural` (an activation a text), `written` (text →
activation), `ratings` (one a natural text), `continuations` (factor → one a natural text; none where the gate was not passed)."""


class SharedJudge(FakeJudge):
    """Understands the reference's questions too, and answers them as it answers ours."""

    def completion(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        asked = body["messages"][-1]["content"].removesuffix("\n")
        if asked.startswith("<description"):
            return super().completion(body, kind)
        if rating := re.match(r"Concept: (.*)\n(?=Sequence ID \d+: ')", asked):
            parts = re.split(r"(?:^|\n)Sequence ID (\d+): ", asked[rating.end() :])[1:]
            samples = {name: text[1:-1] for name, text in zip(parts[::2], parts[1::2], strict=True)}
            ours = Prompts().rating_messages(rating[1], samples, tag=100)
            return super().completion({**body, "messages": ours}, "mapping")
        ours = Prompts().writing_messages(asked, 100, variation=1, tag=100, rng=random.Random(0))
        completion = super().completion({**body, "messages": ours}, kind)
        message = completion["choices"][0]["message"]
        message["content"] = json.dumps(json.loads(message["content"])["texts"])
        return completion


@contextmanager
def judge(case: Record) -> Iterator[str]:
    """The address of the judge that both packages ask."""
    with SharedJudge(writer=lambda concept, variation: case["written"].get(concept, ["The sun."])) as server:
        yield server.base_url


def ours(case: Record, model: Model, sae: SAE[Any], base_url: str) -> list[Record]:
    """What fade_lens finds for each description."""
    n, n_written = len(case["texts"]), len(next(iter(case["written"].values())))
    fade = Fade(
        model,
        sae,
        corpus=case["texts"],
        judge=Judge("rule", base_url=base_url, api_key="none", texts_per_set=n_written),
        preset="paper",
        outlier_factor=float("inf"),
        synthetic_texts=n_written,
        rated_texts=n,
        factors=tuple(case["factors"]),
        mode="clamp",
        prompts=n,
        prompt_tokens=128,  # no text is as long: each is a prompt, uncut
        new_tokens=case["new_tokens"],
        temperature=0.0,
    )
    descriptions = [Description(d["latent"], d["concept"]) for d in case["descriptions"]]
    return [record(result) for result in fade.evaluate(descriptions, progress=False)]


def record(result: Result) -> Record:
    continuations: dict[str, list[str]] = {}
    for one in result.faithfulness_evidence.continuations:
        continuations.setdefault(f"{one.factor:g}", []).append(one.text)
    return {
        "latent": result.description.index,
        "concept": result.description.text,
        **{name: result.metrics[name].value for name in METRICS},
        "natural": [text.activation for text in result.rated_evidence.texts],
        "written": {text.text: text.activation for text in result.clarity_evidence.texts},
        "ratings": [text.rating for text in result.rated_evidence.texts],
        "continuations": continuations,
    }


def reference(python: Path, case: Record, model: Model, base_url: str) -> list[Record]:
    """What the reference finds for each description, in its own environment."""
    job = case | {
        "model": str(gemma_folder()),
        "sae": str(DATA / "gemma-3-270m-layer9-4k"),
        "layer": 9,
        "base_url": base_url,
        "never_generated": never_generated(model, int(model.cfg.d_vocab)).tolist(),
    }
    done = subprocess.run(
        [python, Path(__file__).with_name("reference_run.py")],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        sys.exit(f"the reference failed:\n{done.stderr}")
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Agreement:
    """How far one description's records are from each other."""

    scores: dict[str, float]
    """Difference of each metric; inf where only one of the two is defined."""
    activations: float
    """Largest difference of any text's activation, as a share of the latent's largest."""
    identical: int
    """Continuations that are the same, of `continuations`."""
    continuations: int

    @classmethod
    def of(cls, found: Record, expected: Record) -> "Agreement":
        """Compare two records; raises AssertionError where they are not about the same texts and ratings."""
        for key in ("latent", "concept", "ratings"):
            assert found[key] == expected[key], f"{key}: {found[key]} here, {expected[key]} in the reference"
        assert found["written"].keys() == expected["written"].keys(), "the written texts differ"
        assert found["continuations"].keys() == expected["continuations"].keys(), "the steering factors differ"
        activations = [
            np.array([*r["natural"], *(r["written"][text] for text in sorted(r["written"]))]) for r in (found, expected)
        ]
        pairs = [
            (a, b)
            for factor, texts in found["continuations"].items()
            for a, b in zip(texts, expected["continuations"][factor], strict=True)
        ]
        return cls(
            {name: difference(found[name], expected[name]) for name in METRICS},
            float(np.abs(activations[0] - activations[1]).max() / np.abs(activations[1]).max()),
            sum(a == b for a, b in pairs),
            len(pairs),
        )


def difference(found: float | None, expected: float | None) -> float:
    """0 where both are undefined, inf where one is."""
    if found is None or expected is None:
        return 0.0 if found is expected else float("inf")
    return abs(found - expected)


def show(found: list[Record], expected: list[Record], agreements: list[Agreement]) -> None:
    """One table: each score as `here (difference)`."""
    print(f"{'latent':>6}  {'description':24}" + "".join(f"{name:>20}" for name in METRICS) + "   activations  texts")
    for ours, agreement in zip(found, agreements, strict=True):
        cells = []
        for name in METRICS:
            value = "undefined" if ours[name] is None else f"{ours[name]:.6f}"
            cells.append(f"{value} ({agreement.scores[name]:.0e})")
        print(
            f"{ours['latent']:6}  {ours['concept']:24}"
            + "".join(f"{cell:>20}" for cell in cells)
            + f"   {agreement.activations:11.1e}  {agreement.identical}/{agreement.continuations}"
        )


def rounded(expected: list[Record]) -> list[Record]:
    """As stored: activations with the digits that two implementations share."""
    return [
        r
        | {"natural": [round(a, 2) for a in r["natural"]], "written": {t: round(a, 2) for t, a in r["written"].items()}}
        for r in expected
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="interpreter of an environment that holds fade-language")
    parser.add_argument("--write", action="store_true", help=f"store the reference's numbers in {GOLDEN.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    case = json.loads(GOLDEN.read_text())["case"]
    model, sae = demo.model(), demo.sae()
    with tempfile.TemporaryDirectory() as folder, judge(case) as base_url:
        python = arguments.python or environment(folder)
        started = time.perf_counter()
        found = ours(case, model, sae, base_url)
        between = time.perf_counter()
        expected = reference(python, case, model, base_url)
    print(f"fade_lens {between - started:.0f} s, {REFERENCE} {time.perf_counter() - between:.0f} s (loading included)")
    agreements = [Agreement.of(*pair) for pair in zip(found, expected, strict=True)]
    show(found, expected, agreements)
    if arguments.write:
        golden = {"source": REFERENCE, "case": case, "reference": rounded(expected)}
        GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    if max(max(agreement.scores.values()) for agreement in agreements) > TOLERANCE:
        sys.exit(f"a score differs from the reference's by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
