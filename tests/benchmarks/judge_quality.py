"""How well a judge rates: agreement with labelled real texts, and seconds a text.

    python tests/benchmarks/judge_quality.py                      # the demo's GGUF, one text a request
    python tests/benchmarks/judge_quality.py --gguf judge.gguf --ways single,plain,digit,batched
    python tests/benchmarks/judge_quality.py --judge openai:gpt-4o-mini

The labels (`data/judge_labels.jsonl`) are 21 concepts of the kinds that descriptions of latents name (words, syntax, topics,
languages, formats) with 60 texts each, sampled from the demo's corpus: 2 where the concept is clearly there, 0 where it is not,
1 where readers could differ (left out of AUROC and of the rates). Half are made by `RULES`, half by reading. Thresholds are
also chosen for each concept on the other concepts alone, which shows what fixed thresholds can promise for a new concept.
"""

import argparse
import json
import math
import re
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score, roc_auc_score

LABELS = Path(__file__).parent / "data" / "judge_labels.jsonl"

_DATE = r"(?<![\w/-])(\d{4}-\d\d-\d\d|\d\d?/\d\d?/\d{2,4}|\d\d\.\d\d\.\d{4}|\d\d-\d\d-\d{4})(?!\d|[/-]\d)"
RULES: dict[str, str] = {
    'the word "here"': r"(?i)\bhere\b",
    'the word "something"': r"(?i)\bsomething\b",
    'forms of the word "use"': r"(?i)\b(use|uses|used|using)\b",
    'the adjective "good"': r"(?i)\bgood\b",
    "exclamation marks": r"!(?![=\-\[])(?!\()",
    'class declarations with "extends"': r"class \w+ extends",
    "years in the 1980s": r"\b198\d\b",
    "C preprocessor #include lines": r"#\s*include\b",
    "Python import statements": r"(?m)^\W*(from [\w.]+ import|import [\w.]+( as \w+)?)",
    'the abbreviation "U.S." for the United States': r"\bU\.S\.(?!M|A\.|S)",
    "dates written with numbers, such as 2005-09-14": _DATE,
}
"""What a text labelled 2 contains. Of those labelled 0 none does, but for Java's and JavaScript's imports."""


@dataclass(frozen=True)
class Labelled:
    """One text's label (0, 1, 2) for one concept."""

    concept: str
    label: int
    text: str


@dataclass(frozen=True)
class Rated:
    """What a judge made of it: a rating (None where it gave none) and, where it has one, a graded score."""

    item: Labelled
    rating: int | None
    score: float | None


def load(path: Path = LABELS, texts: int | None = None) -> list[Labelled]:
    """The labelled texts, by concept; at most `texts` of each, in the file's (shuffled) order."""
    rows = [Labelled(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    kept: dict[str, list[Labelled]] = {}
    for row in rows:
        if texts is None or len(kept.setdefault(row.concept, [])) < texts:
            kept.setdefault(row.concept, []).append(row)
    return [row for group in kept.values() for row in group]


def against_rules(items: Iterable[Labelled]) -> list[Labelled]:
    """The items whose labels `RULES` contradict: none in the file."""
    return [
        item
        for item in items
        if (rule := RULES.get(item.concept))
        and item.label != 1
        and (item.label == 2) != bool(re.search(rule, item.text))
        and not (item.concept.startswith("Python import") and item.label == 0)
    ]


# ------------------------------------------------------------------------------------------------ ways of asking


def through_judge(judge: Any) -> Callable[[str, Sequence[str]], list[tuple[int | None, float | None]]]:
    """Ratings as an evaluation gets them, calibration included."""

    def rate(concept: str, texts: Sequence[str]) -> list[tuple[int | None, float | None]]:
        return [(rating.value, rating.score) for rating in judge.rate(concept, texts)]

    return rate


def plain(base_url: str) -> Callable[[str, Sequence[str]], list[tuple[int | None, float | None]]]:
    """The simplest question with the same arithmetic: no examples, no calibration."""
    from fade_lens.judge import single

    def rate(concept: str, texts: Sequence[str]) -> list[tuple[int | None, float | None]]:
        prompts = (f"Text: {text}\n\nDoes the text match “{concept}”? Answer Yes or No." for text in texts)
        return [(None, single.score(_first_token(base_url, prompt))) for prompt in prompts]

    return rate


def digit(base_url: str) -> Callable[[str, Sequence[str]], list[tuple[int | None, float | None]]]:
    """One digit a text, as its expectation over log-probabilities."""

    def rate(concept: str, texts: Sequence[str]) -> list[tuple[int | None, float | None]]:
        found: list[tuple[int | None, float | None]] = []
        for text in texts:
            question = f"Text: {text}\n\nHow well does the text match “{concept}”? 0: not at all, 1: partly, 2: clearly. Answer with one digit."
            weights = {int(t): math.exp(p) for t, p in _first_token(base_url, question) if t in {"0", "1", "2"}}
            total = sum(weights.values())
            score = sum(d * w for d, w in weights.items()) / total if total else None
            found.append((None if score is None else round(score), score))
        return found

    return rate


def _first_token(base_url: str, question: str) -> list[tuple[str, float]]:
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 1, "temperature": 0}
    body |= {"logprobs": True, "top_logprobs": 20}
    request = urllib.request.Request(
        f"{base_url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        top = json.load(answer)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return [(entry["token"], entry["logprob"]) for entry in top]


# ------------------------------------------------------------------------------------------------ figures


def auroc(rated: Sequence[Rated]) -> float:
    """AUROC of the score (of the rating where there is none) for label 2 against 0; unrated texts count as lowest.

    NaN where one of the two labels is missing.
    """
    kept = [one for one in rated if one.item.label != 1]
    if len({one.item.label for one in kept}) < 2:
        return math.nan
    scores = [one.score if one.score is not None else -1e9 if one.rating is None else one.rating for one in kept]
    return float(roc_auc_score([one.item.label == 2 for one in kept], scores))


def rates(rated: Sequence[Rated]) -> dict[str, float]:
    """How the three ratings fall on the labels.

    `hit` and `missed`: share of label 2 rated 2 and 0; `false` and `clean`: share of label 0 rated 2 and 0;
    `balanced`: balanced accuracy of "rated 2"; `precision_1pct`: precision of "rated 2" if 1 % of texts had the concept;
    `kappa`: Cohen's, linearly weighted, all three labels.
    """
    yes = [one.rating for one in rated if one.item.label == 2]
    no = [one.rating for one in rated if one.item.label == 0]
    hit, false = _share(yes, 2), _share(no, 2)
    both = [(one.item.label, one.rating) for one in rated if one.rating is not None]
    return {
        "hit": hit,
        "missed": _share(yes, 0),
        "false": false,
        "clean": _share(no, 0),
        "balanced": (hit + 1 - false) / 2,
        "precision_1pct": 0.01 * hit / (0.01 * hit + 0.99 * false) if hit or false else math.nan,
        "kappa": float(cohen_kappa_score(*zip(*both, strict=True), labels=[0, 1, 2], weights="linear"))
        if both
        else 0.0,
        "unrated": sum(one.rating is None for one in rated) / len(rated),
    }


def _share(ratings: Sequence[int | None], value: int) -> float:
    return sum(rating == value for rating in ratings) / len(ratings) if ratings else math.nan


def thresholds(rated: Sequence[Rated], false: float = 0.02, missed: float = 0.10) -> tuple[float, float]:
    """(partly, clearly): the least score that at most `false` of label 0 reach, and the greatest that at most `missed` of
    label 2 stay under, not above the other."""
    no = [one.score for one in rated if one.item.label == 0 and one.score is not None]
    yes = [one.score for one in rated if one.item.label == 2 and one.score is not None]
    clearly = float(np.quantile(no, 1 - false))
    return min(float(np.quantile(yes, missed)), clearly), clearly


def left_out(by_concept: dict[str, list[Rated]]) -> list[Rated]:
    """All texts, each concept rated by thresholds chosen on the others."""
    out: list[Rated] = []
    for concept, rated in by_concept.items():
        partly, clearly = thresholds([one for other, ones in by_concept.items() if other != concept for one in ones])
        for one in rated:
            rating = None if one.score is None else 2 if one.score >= clearly else 1 if one.score >= partly else 0
            out.append(Rated(one.item, rating, one.score))
    return out


def table(name: str, by_concept: dict[str, list[Rated]], seconds: float) -> str:
    """The figures of one way of asking, in text."""
    everything = [one for rated in by_concept.values() for one in rated]
    graded = any(one.score is not None for one in everything)
    aurocs = {concept: auroc(rated) for concept, rated in by_concept.items()}
    lines = [f"\n{name}: {len(everything)} texts, {seconds / len(everything):.3f} s a text, background included"]
    lines += [f"  {value:.3f}  {concept}" for concept, value in sorted(aurocs.items(), key=lambda pair: pair[1])]
    values = [value for value in aurocs.values() if not math.isnan(value)]
    lines += [
        f"  AUROC mean {np.mean(values):.3f}, range {min(values):.3f}-{max(values):.3f}, pooled {auroc(everything):.3f}"
    ]
    ways = {"as rated": everything} if any(one.rating is not None for one in everything) else {}
    if graded:
        ways["thresholds from the other concepts"] = left_out(by_concept)
    for way, rated in ways.items():
        lines += [f"  {way}: " + ", ".join(f"{key} {value:.3f}" for key, value in rates(rated).items())]
    if graded:
        lines += ["  thresholds from all concepts: partly {:.2f}, clearly {:.2f}".format(*thresholds(everything))]
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="a GGUF model; by default the demo's")
    parser.add_argument("--ways", default="single", help="of single, plain, digit, batched, with commas between")
    parser.add_argument("--judge", help="a judge by name, such as openai:gpt-4o-mini, in place of a GGUF")
    parser.add_argument("--rating", default="batched", choices=["batched", "single"], help="with --judge")
    parser.add_argument("--texts", type=int, default=20, help="texts a concept, 60 at most")
    parser.add_argument("--out", type=Path, help="JSON file for every rating")
    options = parser.parse_args()

    from fade_lens.judge import Judge
    from fade_lens.llm.local import serve

    items = load(texts=options.texts)
    if wrong := against_rules(items):
        raise SystemExit(f"labels against their rule: {wrong[:3]}")
    ways: dict[str, Callable[[], Callable[[str, Sequence[str]], list[tuple[int | None, float | None]]]]] = {}
    if options.judge:
        ways[options.judge] = lambda: through_judge(Judge.parse(options.judge, rating=options.rating))
    else:
        path = options.gguf or _demo_gguf()
        ways = {
            "single": lambda: through_judge(Judge.local(path, rating="single")),
            "batched": lambda: through_judge(Judge.local(path, rating="batched", texts_per_request=10)),
            "plain": lambda: plain(serve(path).base_url),
            "digit": lambda: digit(serve(path).base_url),
        }
        ways = {name: ways[name] for name in options.ways.split(",")}

    record: dict[str, list[dict[str, Any]]] = {}
    for name, make in ways.items():
        rate = make()
        by_concept: dict[str, list[Rated]] = {}
        started = time.perf_counter()
        for concept in dict.fromkeys(item.concept for item in items):
            mine = [item for item in items if item.concept == concept]
            answers = rate(concept, [item.text for item in mine])
            by_concept[concept] = [Rated(item, *answer) for item, answer in zip(mine, answers, strict=True)]
        print(table(name, by_concept, time.perf_counter() - started), flush=True)
        record[name] = [vars(o.item) | {"rating": o.rating, "score": o.score} for v in by_concept.values() for o in v]
    if options.out:
        options.out.write_text(json.dumps(record, ensure_ascii=False))


def _demo_gguf() -> Path:
    from fade_lens.demo import judge_gguf

    return judge_gguf()


if __name__ == "__main__":
    main()
