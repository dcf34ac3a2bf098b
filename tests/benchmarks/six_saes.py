"""Do the columns of a release tell what is wrong with an SAE? The demo's, and five that were made from it, each spoilt in one way.

    python -m tests.benchmarks.six_saes FOLDER [--latents 24]      # resumes what FOLDER holds; about half an hour on two cores

The judge goes by rules (`tests/demo_rules.py`), so that what differs is the SAE. `FALLS` was written before the first run: which columns must fall,
against the true SAE, and which must stay. A column falls where the interval of the difference over latents lies below 0 (for health: where the
intervals of the two SAEs do not meet), and stays where it does not. Faithfulness is the unconditional one: 0 where the gate is not passed, so that it falls
with the input scores too; the conditional one stands beside it.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from fade_lens import Judge, compare, demo, release
from tests.demo_rules import rule, writer
from tests.fake_judge import FakeJudge

HEALTH, INPUT, OUTPUT = "recovered", ("clarity", "responsiveness", "purity"), "faithfulness"
FALLS = {
    "encoder noised": {"health": True, "input": True},
    "latents permuted": {"health": False, "input": True},
    "half the width": {"health": True, "input": False, "output": False},
    "decoder random": {"health": True, "input": False, "output": True},
    "all random": {"health": True, "input": True},
}
"""What must fall (True) and what must stay (False); what is not named may do either: an SAE whose input scores fall has few latents behind the gate."""
SETTINGS: dict[str, Any] = {
    "synthetic_texts": 8,
    "rated_texts": 60,
    "prompts": 10,
    "new_tokens": 24,
    "factors": (1.0, 1.5),
}


def saes(described: list[int]) -> dict[str, SAE[Any]]:
    """The six."""
    true, generator = demo.sae(), torch.Generator().manual_seed(0)

    def normal(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    def spoilt(change: Callable[[Any], None]) -> SAE[Any]:
        made: Any = copy.deepcopy(true)
        with torch.no_grad():
            change(made)
        return made

    def noise(sae: Any) -> None:
        sae.W_enc += 0.5 * sae.W_enc.norm(dim=0) * normal(sae.W_enc) / sae.W_enc.shape[0] ** 0.5

    def permute(sae: Any) -> None:
        # Among the described latents alone: each then has another one's description, and the SAE computes the same.
        shifted = [*described[1:], described[0]]
        for weights, axis in ((sae.W_enc, 1), (sae.W_dec, 0), (sae.b_enc, 0), (sae.threshold, 0)):
            new = weights.index_select(axis, torch.tensor(shifted))
            weights.index_copy_(axis, torch.tensor(described), new)

    def halve(sae: Any) -> None:
        order = torch.randperm(len(sae.W_dec), generator=generator).tolist()
        gone = [i for i in order if i not in set(described)][: len(order) // 2]
        sae.W_dec[gone], sae.threshold[gone] = 0.0, torch.inf

    def random_decoder(sae: Any) -> None:
        new = normal(sae.W_dec)
        sae.W_dec.copy_(new / new.norm(dim=1, keepdim=True) * sae.W_dec.norm(dim=1, keepdim=True))

    def random_all(sae: Any) -> None:
        random_decoder(sae)
        new = normal(sae.W_enc)
        sae.W_enc.copy_(new / new.norm(dim=0) * sae.W_enc.norm(dim=0))

    changes = (noise, permute, halve, random_decoder, random_all)
    return {"true": true, **{name: spoilt(change) for name, change in zip(FALLS, changes, strict=True)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latents", type=int, default=24)
    parser.add_argument("--corpus", type=int, default=2000, help="texts of the corpus")
    options = parser.parse_args()
    descriptions = {d.index: d.text for d in demo.descriptions()}
    six, model, corpus = saes(sorted(descriptions)), demo.model(), demo.corpus(options.corpus)
    with FakeJudge(rule=rule, writer=writer) as server:
        # A key is made up: the judge is a server of this process.
        judge = Judge("rules", base_url=server.base_url, api_key="none", name="rules")
        found = release(
            six, model=model, corpus=corpus, judge=judge, folder=options.folder, latents=options.latents, descriptions=dict.fromkeys(six, descriptions),
            told=lambda name, what: print(name, what if isinstance(what, str) else f"{len(what)} scored", flush=True), progress=False, **SETTINGS,
        )  # fmt: skip
    found.to_csv(options.folder / "release.csv")
    print(found.to_html(options.folder / "release.html"))
    columns = [
        "sae",
        "l0",
        "variance_explained",
        HEALTH,
        "warnings",
        "alive",
        *INPUT,
        OUTPUT,
        f"{OUTPUT}_unconditional",
    ]
    print(found.frame[columns].round(2).to_string(index=False))
    print("\n| SAE | column | difference to the true one | 95 % interval | must | does |\n|---|---|--:|---|---|---|")
    for name, expected in FALLS.items():
        differences = {row["metric"]: row for row in compare(found.results[name], found.results["true"]).differences.to_dict("records")}  # fmt: skip
        own, true = (found.results[one].run.health for one in (name, "true"))
        assert own is not None and true is not None, "the corpus is large enough to look at health"
        a, b = (one.metrics["ce_recovered_zero"] for one in (own, true))
        apart = a.interval is not None and b.interval is not None and a.interval[1] < b.interval[0]
        rows = [("health", "recovered", (a.value or 0) - (b.value or 0), f"{a.interval} and {b.interval}", apart)]
        for kind, scores in (("input", INPUT), ("output", (f"{OUTPUT}_unconditional", OUTPUT))):
            for score in scores:
                one = differences[score]
                rows.append(
                    (kind, score, one["difference"], f"{one['low']:.2f} to {one['high']:.2f}", bool(one["high"] < 0))
                )
        for kind, score, difference, interval, falls in rows:
            must = {True: "fall", False: "stay", None: ""}[expected.get(kind)]
            print(f"| {name} | {score} | {difference:+.2f} | {interval} | {must} | {'falls' if falls else 'stays'} |")


if __name__ == "__main__":
    main()
