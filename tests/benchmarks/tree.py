"""What a search over rules gains: `one-shot`, `structured`, `tree`, and `tree` with texts that the judge writes, scored on the same test texts.

    python -m tests.benchmarks.tree                    # planted latents, a rule in place of a judge: a minute
    python -m tests.benchmarks.tree --demo FOLDER      # three latents of the demo's SAE, its embedded judge; resumes what FOLDER holds

Planted latents are of three sorts, `KINDS` of each, over kinds of made-up words:

- one: fires on all words of one kind; what an explainer says first is right, so nothing is to be gained;
- two: fires on the words of two kinds, half as strongly on those of the second;
- part: fires on three of eight words of a kind; the others are rare in natural texts and as frequent as these in written ones.

The explainer is a rule that attends to `SEEN` of the windows it is shown, drawn by the seed of its request, and names the kinds of the words
marked there. Asked for a revision it adds the kinds of words marked where the rules miss, leaves out words that a rule names where the latent is
silent, and in half of its answers adds a kind at random. The judge knows the words and errs on `WRONG` of its decisions, in trying as in testing.
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import SAE, HookedSAETransformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fade_lens import Fade, Judge, demo
from fade_lens._util.seeds import rng, stream
from fade_lens.explainers.table import Explanations
from fade_lens.llm.chat import Answer
from fade_lens.llm.request import Request
from tests.benchmarks.does_it_work import explained, told
from tests.tiny import OTHERS, SPECIAL, tiny_model, tiny_sae

KINDS, LETTERS, COMMON, TEXTS = 24, "abcdefgh", 3, 4000
SEEN, WRONG = 2, 0.05
ARMS: dict[str, dict[str, Any]] = {"one-shot": {}, "structured": {}, "tree": {}, "tree, written": {"tree_written": 24}}
WORD = re.compile(r"k(\d+)[a-h]")
CLAIM = re.compile(r"words of kind (\d+)(?: but ((?:k\w+ ?)+))?")
EXCERPT = re.compile(r'<excerpt (\d+)(?: id="\d+")?>\n(.*?)\n</excerpt', re.S)
DEMO = {"tree_depth": 2, "tree_width": 2, "tree_roots": 2, "tree_texts": 12, "showing": "small", "rule_cap": 2}


def words_of(kind: int) -> list[str]:
    return [f"k{kind}{letter}" for letter in LETTERS]


WORDS = [word for kind in range(KINDS) for word in words_of(kind)]


def world() -> tuple[HookedSAETransformer, SAE[Any], list[str]]:
    """A model in which each word has a direction of its own, its latents, and natural texts."""
    vocabulary = {word: at for at, word in enumerate([*SPECIAL, *OTHERS, *WORDS])}
    model = tiny_model(n_layers=1, normalization_type=None, d_vocab=len(vocabulary), d_model=len(vocabulary))
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    sae: Any = tiny_sae("jumprelu", d_in=len(vocabulary), d_sae=3 * KINDS)
    with torch.no_grad():
        for parameter in (*model.parameters(), *sae.parameters()):
            parameter.mul_(0.001)
        sae.threshold.fill_(1.0)
        model.embed.W_E[torch.arange(len(vocabulary)), torch.arange(len(vocabulary))] = 4.0
        for kind in range(KINDS):
            own, other = ([vocabulary[w] for w in words_of(k)] for k in (kind, (kind + 1) % KINDS))
            sae.W_enc[own, kind] = 1.0
            sae.W_enc[own, KINDS + kind], sae.W_enc[other, KINDS + kind] = 1.0, 0.5
            sae.W_enc[own[:COMMON], 2 * KINDS + kind] = 1.0
    random, texts = np.random.default_rng(0), list[str]()
    common = np.array([0.3] * COMMON + [0.02] * (len(LETTERS) - COMMON))
    for _ in range(TEXTS):
        text = random.choice(OTHERS, random.integers(8, 14)).tolist()
        for kind in np.flatnonzero(random.random(KINDS) < 1 / KINDS).tolist():
            text[random.integers(1, len(text))] = str(random.choice(words_of(kind), p=common / common.sum()))
        texts.append(" ".join(text))
    return model, sae, texts


class Ruler:
    """Explainer, judge and writer by rule."""

    name = "rule"

    async def ask(self, request: Request) -> Answer:
        said = request.messages[-1]["content"]
        if request.kind == "explain":
            return Answer(self.explain(request, said))
        if request.kind == "hold":
            rules = [json.loads(line.split(" ", 1)[1]) for line in said.split("</rules>")[0].splitlines()[1:] if line]
            rows = [{"id": int(n), "rules": [at for at, one in enumerate(rules, 1) if holds(one, text)]} for n, text in EXCERPT.findall(said)]  # fmt: skip
            return Answer(json.dumps({"excerpts": rows}))
        if request.texts:
            ratings = [{"id": name, "rating": int(holds(request.concept, text))} for name, text in request.texts.items()]  # fmt: skip
            return Answer(json.dumps({"ratings": ratings}))
        random, words = rng(request.parameters["seed"], request.concept), sorted(meant(request.concept)) or OTHERS[:1]
        return Answer(json.dumps({"texts": [" ".join([*random.choice(OTHERS, 8), str(random.choice(words))]) for _ in range(request.parts)]}))  # fmt: skip

    def explain(self, request: Request, said: str) -> str:
        random, kinds = rng(request.parameters["seed"], "explainer"), dict[int, set[str]]()
        texts = [text for _, text in EXCERPT.findall(said)]
        if "The rules were tried" in said:
            before = [row["activates_on"] for row in json.loads(request.messages[-2]["content"])["rules"]]
            kinds = {int(claim[0]): set(claim[1].split()) for rule in before for claim in CLAIM.findall(rule)}
            silent = {match[0] for match in WORD.finditer(said.partition("the unit is silent")[2])}
            for kind, but in kinds.items():
                but |= silent & set(words_of(kind))
            texts += [f"<<k{random.integers(KINDS)}a>>"] * int(random.integers(2))
        else:
            texts = [texts[at] for at in random.choice(len(texts), min(SEEN, len(texts)), replace=False)]
        for marked in re.findall(r"<<(\w+)>>", " ".join(texts)):
            if found := WORD.fullmatch(marked):
                kinds.setdefault(int(found[1]), set())
        rules = [f"words of kind {k}{' but ' * bool(but)}{' '.join(sorted(but))}" for k, but in kinds.items()]
        rows = [{"activates_on": rule, "strength": 5} for rule in rules]
        asked = '"rules"' in request.messages[0]["content"]
        return json.dumps({"rules": rows} if asked else {"description": "; or ".join(rules)})


def meant(concept: str) -> set[str]:
    """The words that a description names."""
    return {word for kind, but in CLAIM.findall(concept) for word in set(words_of(int(kind))) - set(but.split())}


def holds(concept: str, text: str) -> bool:
    """What the judge says of a text."""
    return bool(meant(concept) & set(text.split())) != (stream(0, "error", concept, text) % 1000 < 1000 * WRONG)


def planted() -> None:
    """Explains the planted latents in every arm, scores and prints."""
    model, sae, texts = world()
    settings: dict[str, Any] = {"synthetic_texts": 30, "rated_texts": 1, "factors": (), "score_rules": False}
    made: dict[str, tuple[Fade, Explanations]] = {}
    for arm, more in ARMS.items():
        started = time.monotonic()
        fade = Fade(model, sae, corpus=texts, judge=Judge(Ruler(), price=(0.0, 0.0)), **settings, **more)
        found = fade.explain(list(range(3 * KINDS)), explainer=arm.split(",")[0], progress=False)
        calls = [row.usage.calls for row in found.rows if row.usage is not None]
        lists = [row.search.get("candidates", 1.0) for row in found.rows]
        most = fade.estimate([0], explainer=arm.split(",")[0], scorers=()).calls
        print(f"{arm}: {len(found)} of {len(found.rows)} described, {np.mean(calls):.1f} calls a latent (at most {max(calls)}, estimate {most}), {np.mean(lists):.1f} lists, {time.monotonic() - started:.0f} s", flush=True)  # fmt: skip
        made[arm] = fade, found
    for at, sort in enumerate(("one", "two", "part")):
        some = range(at * KINDS, (at + 1) * KINDS)
        results = {arm: fade.evaluate(found.among(some), scorers=["detection", "fade"], held_out=True, progress=False) for arm, (fade, found) in made.items()}  # fmt: skip
        print(f"\n### {sort}: {KINDS} latents", flush=True)
        told(results, ["detection", "clarity"])


def demonstrated(folder: Path, latents: list[int], texts: int, tested: int) -> None:
    """Explains some of the demo's latents with its embedded judge, scores each by itself and prints."""
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {**DEMO, "detection_texts": tested, "score_rules": False}
    model, sae, corpus, rows = demo.model(), demo.sae(), demo.corpus(texts), list[str]()
    with Judge.local(demo.judge_gguf()) as judge:
        known: dict[str, Any] = {"store": folder / "store", "progress": False}
        for arm, more in ARMS.items():
            fade, started = Fade(model, sae, corpus=corpus, judge=judge, **settings, **more), time.monotonic()
            found = explained(fade, latents, arm.split(",")[0], folder / f"{arm.replace(', ', '-')}.csv", **known)
            print(f"  {time.monotonic() - started:.0f} s", flush=True)
            for one in fade.evaluate(found, scorers=["detection"], held_out=True, **known):
                d, score = one.description, one.metrics["detection"]
                within = "" if score.interval is None else f" ({score.interval[0]:.2f} to {score.interval[1]:.2f})"
                rows += [f"| {d.index} | {arm} | {d.provenance.candidates or 1} | {d.text} | {score.value or float('nan'):.2f}{within} |"]  # fmt: skip
                print(rows[-1], flush=True)
    print("\n| latent | arm | lists | description | detection |\n|--:|---|--:|---|---|")
    print("\n".join(sorted(rows, key=lambda row: int(row.split("|")[1]))))


def main() -> None:
    """Planted latents, or the demo's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, metavar="FOLDER", help="latents of the demo's SAE, results in this folder")
    parser.add_argument("--latents", type=int, nargs="+", default=[1402, 2742, 4005], help="of the demo's SAE")
    parser.add_argument("--corpus", type=int, default=2000, help="texts of the demo's corpus")
    parser.add_argument("--texts", type=int, default=20, help="texts that detection tests a description on")
    options = parser.parse_args()
    if options.demo is None:
        planted()
    else:
        demonstrated(options.demo, options.latents, options.corpus, options.texts)


if __name__ == "__main__":
    main()
