"""How many of the demo's latents share a description, and how many do once these are described against each other.

    python -m tests.benchmarks.collisions FOLDER [--latents 200] [--judge demo]      # resumes what FOLDER holds

Latents drawn by seed are described by `tfidf`, which asks nobody and so says the same where latents fire on the same words. Those that share a
description are then explained by `contrastive` against each other, one call each.
"""

import argparse
import time
from pathlib import Path

from fade_lens import Fade, Judge, demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latents", type=int, default=200)
    parser.add_argument("--corpus", type=int, default=2000, help="texts of the corpus")
    parser.add_argument("--judge", default="demo", help="demo, or a judge such as openai:gpt-4o-mini")
    options = parser.parse_args()
    model, sae, corpus = demo.model(), demo.sae(), demo.corpus(options.corpus)
    with Judge.local(demo.judge_gguf()) if options.judge == "demo" else Judge.parse(options.judge) as judge:
        fade = Fade(model, sae, corpus=corpus, judge=judge, showing="small")
        store = options.folder / "store"
        said = fade.explain(f"random:{options.latents}", explainer="tfidf", store=store, progress=False)
        print(f"{said}\n{said.collisions()}\n{said.collisions().frame.to_string()}", flush=True)
        started = time.monotonic()
        found = fade.untangle(said, store=store, progress=False)
        print(f"{found.run['collisions']}\n{found.collisions()}, {time.monotonic() - started:.0f} s")
        before, after = said.by_index, found.by_index
        print("\n| latent | before | after |\n|---|---|---|")
        for index in said.collisions().indices:
            was, now = before[index].description, after[index].description
            print(f"| {index} | {was and was.text} | {now and now.text if now != was else '(stays)'} |")


if __name__ == "__main__":
    main()
