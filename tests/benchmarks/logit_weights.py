"""What the demo's latents do to the vocabulary, beside random directions: moments of their logits, and sets of tokens that they promote.

    python -m tests.benchmarks.logit_weights [--latents 300]      # a minute

The latents are those with a hand-written description and others drawn by seed; the random directions stand in the same SAE in their place.
"""

import argparse
from typing import Any

import pandas as pd
import torch

from fade_lens import demo, logit_weights
from fade_lens.data.indices import chosen_indices

FALSE = 0.05
"""False discovery rate."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=300)
    options = parser.parse_args()
    model, sae, described = demo.model(), demo.sae(), {d.index: d.text for d in demo.descriptions()}
    random: Any = demo.sae()
    with torch.no_grad():
        random.W_dec.copy_(torch.randn(random.W_dec.shape, generator=torch.Generator().manual_seed(1)))
    drawn = chosen_indices(f"random:{options.latents}", len(random.W_dec), 0)
    arms = {
        "latents": (sae, drawn),
        "random directions": (random, drawn),
        "described latents": (sae, sorted(described)),
    }
    found = {name: logit_weights(model, source, some) for name, (source, some) in arms.items()}

    print(
        "| | n | skewness, median (10 % to 90 %) | kurtosis | with an enriched set | median size of |z| of the farthest set |\n|---|--:|---|---|--:|--:|"
    )
    for name, one in found.items():
        moments = [one.frame[key].quantile([0.1, 0.5, 0.9]).tolist() for key in ("skewness", "kurtosis")]
        told = " | ".join(f"{middle:.2f} ({low:.2f} to {high:.2f})" for low, middle, high in moments)
        enriched = one.sets[(one.sets["q_value"] < FALSE) & (one.sets["z"] > 0)]["index"].nunique()
        farthest = one.sets["z"].abs().groupby(one.sets["index"]).max().median()
        print(f"| {name} | {len(one.frame)} | {told} | {enriched / len(one.frame):.0%} | {farthest:.1f} |")

    sets: pd.DataFrame = found["described latents"].sets
    print("\n| latent | description | set | z |\n|---|---|---|--:|")
    for row in sets.sort_values("z", ascending=False).drop_duplicates("index").head(10).to_dict("records"):
        print(f"| {row['index']} | {described[row['index']]} | {row['set']} | {row['z']:.1f} |")


if __name__ == "__main__":
    main()
