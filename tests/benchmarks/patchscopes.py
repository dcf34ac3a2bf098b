"""Whether a model tells in its own words what was planted: directions of ten words, and ten random ones.

    python -m tests.benchmarks.patchscopes                      # no hub: the model comes from packages of the extra `demo`; minutes
    python -m tests.benchmarks.patchscopes --words dev          # other words, on which the questions were compared

The subject is the demo's judge, Qwen2.5-Coder-1.5B-Instruct: its GGUF made plain bfloat16 weights once (3 GB in the cache folder, or `--model`).
A word's direction is planted so: the residual stream in front of block `--layer` at the word's last token, mean over six sentences that contain it,
less the same mean over sixteen other words, which are none of those asked about. The answer is what a user gets: that of `fade_lens.patchscopes`,
which sees the directions alone, at its defaults but for fewer scales. An answer is right if it is the word; case, blanks, an article in front and a plural aside.
"""

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import fade_lens
from fade_lens.demo.parts import dequantized, judge_gguf
from fade_lens.subject.hooks import read_hooks, resolve_hook
from fade_lens.subject.loading import load_model
from tests.benchmarks.timing import machine

SENTENCES = (
    "Yesterday we talked about the {w} for a while.",
    "She wrote a long letter about her {w} last week.",
    "He asked me again what I thought of the {w}.",
    "Nothing is as important to them as the {w}.",
    "In the picture you can see a {w} in the middle.",
    "They did not know much about any {w} until then.",
)
WORDS = {
    "report": ["candle", "forest", "hotel", "lawyer", "cheese", "rabbit", "ticket", "mirror", "tower", "planet"],
    "first": ["river", "music", "winter", "doctor", "bread", "horse", "money", "window", "war", "bridge"],
    "dev": ["dog", "king", "ocean", "pizza", "school", "garden", "fire", "banana"],
}
"""Those of `dev` served to compare questions; `first` were then asked to be named as concepts, which the README reports too."""
OTHERS = [
    "apple",
    "city",
    "car",
    "friend",
    "teacher",
    "paper",
    "story",
    "machine",
    "summer",
    "mountain",
    "idea",
    "country",
    "color",
    "law",
    "game",
    "chair",
]


def means(model: Any, words: Sequence[str], layer: int) -> torch.Tensor:
    """The mean residual stream at each word's last token, in front of a block; what follows a token changes nothing before it."""
    hook, total = resolve_hook(model, f"blocks.{layer}.hook_resid_pre"), torch.zeros(1)
    for sentence in SENTENCES:
        begun = [model.tokenizer(sentence.split("{w}")[0] + word)["input_ids"] for word in words]
        whole = torch.tensor([[*ids, *[0] * (max(map(len, begun)) - len(ids))] for ids in begun])
        seen = read_hooks(model, whole, [hook])[hook].float()
        total = total + torch.stack([row[len(ids) - 1] for row, ids in zip(seen, begun, strict=True)]) / len(SENTENCES)
    return total


def says(answer: str | None, word: str) -> bool:
    """Whether an answer is the word."""
    plain = re.sub(r"^(an?|the) ", "", " ".join(str(answer or "").casefold().split()))
    return word in (plain, plain.removesuffix("s"), plain.removesuffix("es"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", choices=WORDS, default="report")
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--random", type=int, default=10)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.7, 1.0, 1.4])
    parser.add_argument("--ask", help="another question, with {x}; and how its answer begins")
    parser.add_argument("--answer")
    parser.add_argument("--seed", type=int, default=0, help="of the random directions that are asked about")
    parser.add_argument("--model", type=Path, help="folder of the model, if it is there already")
    options = parser.parse_args()
    words = WORDS[options.words]
    folder = options.model or dequantized("qwen2.5-coder-1.5b-instruct", judge_gguf, "bfloat16")
    model = load_model(str(folder), device="cpu", dtype="bfloat16")
    with torch.no_grad():
        planted = means(model, words, options.layer) - means(model, OTHERS, options.layer).mean(0)
    noise = torch.randn(
        (options.random, planted.shape[1]), generator=torch.Generator().manual_seed(1000 + options.seed)
    )
    began = time.perf_counter()
    found = fade_lens.patchscopes(
        model, torch.cat([planted, noise]), None, options.scales, ask=options.ask, answer=options.answer
    )
    seconds = time.perf_counter() - began
    best: Any = found.best
    best["answer"] = best["answer"].astype(object).where(best["answer"].notna(), None)
    names = [*words, *(f"(random {at})" for at in range(len(noise)))]
    print(f"{machine()}; {len(names)} directions and {len(found.random)} random ones beside them in {seconds:.0f} s\n")
    print(
        "| direction | said | scale | self-similarity | entropy | relevancy | score | at other scales |\n|---|---|--:|--:|--:|--:|--:|---|"
    )
    for name, row in zip(names, best.to_dict("records"), strict=True):
        own, said = found[row["index"]], row["answer"]
        one = max(own, key=lambda a: (a.kept, a.score))
        others = ", ".join(
            dict.fromkeys(f"{a.text}{'' if a.kept else ' (not kept)'}" for a in own if a.text != one.text)
        )
        print(f"| {name} | {f'**{said}**' if says(said, name) else said or '–'} | {one.scale:g} | {one.self_similarity:.2f} | {one.entropy:.2f} | {one.relevancy:.2f} | {one.score:.1f} | {others} |")  # fmt: skip
    right = sum(says(said, word) for said, word in zip(best["answer"], words, strict=False))
    anywhere = sum(any(a.kept and says(a.text, word) for a in found[at]) for at, word in enumerate(words))
    ever = sum(any(says(a.text, word) for a in found[at]) for at, word in enumerate(words))
    taken = int(best["answer"].notna()[len(words) :].sum())
    print(
        f"\nanswered with the word: {right} of {len(words)}; among the kept answers at some scale: {anywhere}; among all: {ever}"
    )
    print(f"random directions taken for a concept: {taken} of {len(noise)}")


if __name__ == "__main__":
    main()
