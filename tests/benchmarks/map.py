"""A map of many latents: how long each part takes, and what clusters are worth on the demo's SAE beside random directions.

    python -m tests.benchmarks.map sizes [--latents 16000 100000]     # made-up directions: no model, minutes at 100,000
    python -m tests.benchmarks.map demo FOLDER                        # the demo's SAE on its corpus; the page goes to FOLDER

`demo` also lays out as many random directions of the same mean and covariance: how many of these does HDBSCAN put into clusters?
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fade_lens import LatentMap, demo, latent_map
from fade_lens.analysis.geometry import clusters_tested, layout
from fade_lens.subject.neighbours import nearest, unit_rows

D_MODEL = 768


def sizes(counts: list[int]) -> None:
    """Made-up directions: groups of five about random centres."""
    layout(unit_rows(torch.randn(100, 16)))  # UMAP compiles at its first use
    print(
        "| latents | neighbours | UMAP twice and HDBSCAN | clusters tested | page written | page |\n|---|---|---|---|---|---|"
    )
    for n in counts:
        draw = torch.Generator().manual_seed(0)
        centres = torch.randn(n // 5, D_MODEL, generator=draw).repeat_interleave(5, 0)
        rows = unit_rows(centres + torch.randn(centres.shape, generator=draw))
        marks = [time.monotonic()]
        nearest(rows, lambda some, rows=rows: rows[some], n, 14, but=torch.arange(n))
        marks.append(time.monotonic())
        laid = layout(rows)
        marks.append(time.monotonic())
        tested = pd.DataFrame(clusters_tested(laid.clusters, rows))
        marks.append(time.monotonic())
        frame = pd.DataFrame({"sae": "made up", "hook": "h", "layer": 0, "width": n, "index": np.arange(n), "x": laid.places[:, 0], "y": laid.places[:, 1], "cluster": laid.clusters, "promoted": "' some', ' tokens'" * 4, "description": "a description of a latent"})  # fmt: skip
        page = LatentMap(frame, tested, pd.DataFrame()).to_html(Path(tempfile.mkdtemp()) / "map.html")
        marks.append(time.monotonic())
        took = np.diff(marks)
        print(
            f"| {n:,} | {took[0]:.0f} s | {took[1] - took[0]:.0f} s | {took[2]:.0f} s | {took[3]:.1f} s | {page.stat().st_size / 1e6:.1f} MB |",
            flush=True,
        )


def of_demo(folder: Path) -> None:
    """The demo's SAE, and random directions."""
    sae, started = demo.sae(), time.monotonic()
    made = latent_map(sae, model=demo.model(), corpus=demo.corpus(2000), progress=False)
    print(f"{made} in {time.monotonic() - started:.0f} s; {made.to_html(folder / 'map.html')}")
    table: Any = made.clusters
    print(f"in a cluster {(made.frame['cluster'] >= 0).mean():.0%}; clusters {len(table)}: cosine q < 0.05 {(table['cosine_q'] < 0.05).mean():.0%}, lift q < 0.05 {(table['lift_q'] < 0.05).mean():.0%}, p < 0.05 {(table['lift_p'] < 0.05).mean():.0%}, median lift {table['lift'].median():.2f} (random {table['lift_random'].median():.2f})")  # fmt: skip
    print(table.head(8).to_string())
    rows = unit_rows(sae.W_dec).numpy()
    alike = np.random.default_rng(0).multivariate_normal(
        rows.mean(0), np.cov(rows.T), size=len(made), method="cholesky"
    )
    unit = unit_rows(torch.from_numpy(alike).float())
    laid = layout(unit)
    null: Any = pd.DataFrame(clusters_tested(laid.clusters, unit))
    print(f"random directions of equal mean and covariance: in a cluster {(laid.clusters >= 0).mean():.0%}, clusters {len(null)}: cosine q < 0.05 {(null['cosine_q'] < 0.05).mean():.0%}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sizes", "demo"])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("map"))
    parser.add_argument("--latents", type=int, nargs="+", default=[16_000, 100_000])
    options = parser.parse_args()
    if options.what == "sizes":
        sizes(options.latents)
    else:
        of_demo(options.folder)


if __name__ == "__main__":
    main()
