"""Several descriptions in one request: calls and prompt tokens with and without, and how far both ways agree.

    python -m tests.benchmarks.together                                  a rule-based judge on loopback, under a minute, no network
    python -m tests.benchmarks.together --judge openai:gpt-4o-mini       how far a real judge agrees with itself (about 100 calls)

By default texts of random words are rated in rounds, as an evaluation rates natural texts, for several descriptions of each of some
features: each for itself, and as a run with `Judge(descriptions_per_request=…)` does, its trial included. Tokens are reckoned from the
characters of prompts and answers. What is saved depends on how much of a prompt the texts are, so texts of several lengths are tried.

With `--judge` the labelled texts of `judge_quality` are rated for the concept that they are labelled for and for others beside it,
alone and together. Quadratic-weighted kappa between the two is what a run's trial looks at; beside it stands the agreement of each way
with the labels.
"""

import argparse
import random
import time
from collections.abc import Sequence
from typing import Any

from fade_lens.judge import Judge, Rating
from fade_lens.judge.agreement import Agreement
from fade_lens.judge.rounds import Question
from fade_lens.judge.together import JointRating
from fade_lens.judge.trial import Trial, pairs
from fade_lens.judge.usage import CHARS_PER_TOKEN, Usage
from tests.benchmarks.judge_quality import Labelled, load
from tests.fake_judge import FakeJudge, mentions

VOCABULARY = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("n", "rk", "st", "l")]
ROUND = 60


class Counting(FakeJudge):
    """Reckons tokens as estimates do."""

    def completion(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        made = super().completion(body, kind)
        prompt = sum(len(message["content"]) for message in body["messages"])
        answer = len(made["choices"][0]["message"]["content"] or "")
        made["usage"] = {
            "prompt_tokens": round(prompt / CHARS_PER_TOKEN),
            "completion_tokens": round(answer / CHARS_PER_TOKEN),
        }
        return made


def made_up(features: int, descriptions: int, n_texts: int, words: int) -> dict[int, tuple[list[str], list[str]]]:
    """For each feature its descriptions, one of them of a word that a quarter of its texts hold, and its texts."""
    chance = random.Random(0)
    found: dict[int, tuple[list[str], list[str]]] = {}
    for feature in range(features):
        named = chance.sample(VOCABULARY, descriptions)
        others = [word for word in VOCABULARY if word not in named]
        texts: list[str] = []
        for number in range(n_texts):
            chosen = [str(number), *chance.choices(others, k=words - 1)]
            for word, share in zip(named, (0.25, *[0.05] * descriptions), strict=False):
                if chance.random() < share:
                    chosen[chance.randrange(1, words)] = word
            texts.append(" ".join(chosen))
        found[feature] = [f"{feature}: the word '{word}'" for word in named], texts
    return found


def rated(
    judge: Judge, features: dict[int, tuple[list[str], list[str]]], at_once: int
) -> tuple[list[list[int | None]], Trial]:
    """All texts rated for all descriptions of their feature, in rounds as a run does; and the trial."""
    several = {f: pairs(len(concepts), len(texts), at_once) for f, (concepts, texts) in features.items()}
    trial = Trial(several if at_once > 1 else {}, at_once, judge.texts_per_request)
    futures = []
    for feature, (concepts, texts) in features.items():

        def following(ratings: list[Rating], texts: list[str] = texts) -> list[str]:
            return texts[len(ratings) : len(ratings) + ROUND]

        questions = [Question(concept, following, feature) for concept in concepts]
        futures += judge.submit_together(questions, trial, seed=feature, feature=feature)
    return [[rating.value for rating in future.result()] for future in futures], trial


def by_rule(options: argparse.Namespace) -> None:
    """Calls and tokens with a judge that rates by rule."""
    print(
        f"{options.features} features x {options.descriptions} descriptions, {options.texts} texts each, in rounds of {ROUND}, "
        f"15 texts a request; a rule rates\n"
    )
    print("| words a text | descriptions a request | calls | prompt tokens | completion tokens | the trial |")
    print("|---|---|---|---|---|---|")
    for words in options.words:
        features = made_up(options.features, options.descriptions, options.texts, words)
        first: tuple[list[list[int | None]], Usage] | None = None
        for at_once in (1, options.descriptions):
            with Counting(mentions) as server, Judge("rule", base_url=server.base_url, api_key="none") as judge:
                ratings, trial = rated(judge, features, at_once)
                usage, report = judge.usage, trial.report()
            first = first or (ratings, usage)
            assert ratings == first[0], "the rule's ratings are the same however it is asked"
            share = [
                f"{n:,} ({n / of:.2f} x)"
                for n, of in (
                    (usage.calls, first[1].calls),
                    (usage.prompt_tokens, first[1].prompt_tokens),
                    (usage.completion_tokens, first[1].completion_tokens),
                )
            ]
            said = (
                f"{report['n']} ratings of {len(report['features'])} feature(s), weighted kappa {report['weighted']}"
                if at_once > 1
                else "–"
            )
            print(f"| {words} | {at_once} | {' | '.join(share)} | {said} |", flush=True)


def groups_of(items: Sequence[Labelled], at_once: int) -> list[tuple[list[str], list[Labelled]]]:
    """Concepts in groups, as if each group were the descriptions of one feature, with the texts that are labelled for one of them."""
    concepts = list(dict.fromkeys(item.concept for item in items))
    random.Random(0).shuffle(concepts)
    groups = [concepts[at : at + at_once] for at in range(0, len(concepts), at_once)]
    return [(group, [i for i in items if i.concept in group]) for group in groups if len(group) > 1]


def jointly(judge: Judge, concepts: Sequence[str], texts: Sequence[str]) -> dict[tuple[str, str], Rating]:
    """What joint answers give, with nothing asked again."""
    return judge._submit(
        lambda call: JointRating(judge._transport, call, 1, judge.texts_per_request, 0.0).rate(concepts, texts)
    ).result()


def by_judge(options: argparse.Namespace) -> None:
    """How far a real judge agrees with itself, and each way with the labels."""
    groups = groups_of(load(texts=options.labelled), options.descriptions)
    alone: list[int | None] = []
    together: list[int | None] = []
    labels: list[tuple[int, int | None, int | None]] = []
    with Judge.parse(options.judge, rating="batched") as judge:
        asked = [
            ([judge.submit_rate(concept, [i.text for i in items], seed=1) for concept in concepts], concepts, items)
            for concepts, items in groups
        ]
        apart = [[[r.value for r in future.result()] for future in futures] for futures, _, _ in asked]
        between = judge.usage
        for ratings, (concepts, items) in zip(apart, groups, strict=True):
            texts = [i.text for i in items]
            joint = jointly(judge, concepts, texts)
            for concept, own in zip(concepts, ratings, strict=True):
                both = [joint.get((concept, text)) for text in texts]
                found = [None if rating is None else rating.value for rating in both]
                alone += own
                together += found
                labels += [(i.label, a, b) for i, a, b in zip(items, own, found, strict=True) if i.concept == concept]
        usage = judge.usage
    print(f"{options.judge}: {len(groups)} groups of up to {options.descriptions} concepts, {len(alone)} ratings")
    print(f"one description a request:      {between}")
    print(f"several descriptions a request: {usage - between}")
    for name, agreed in (
        ("both ways", Agreement.of("", alone, together)),
        ("labels, one a request", Agreement.of("", [i for i, _, _ in labels], [a for _, a, _ in labels])),
        ("labels, several a request", Agreement.of("", [i for i, _, _ in labels], [b for _, _, b in labels])),
    ):
        print(
            f"{name}: n {agreed.n}, unrated {agreed.unrated}, same {agreed.same}, weighted kappa {agreed.weighted}, {agreed.table}"
        )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--descriptions", type=int, default=3, help="of each feature, all in one request")
    parser.add_argument("--texts", type=int, default=200, help="texts a feature")
    parser.add_argument("--words", type=int, nargs="+", default=[20, 80], help="words a text")
    parser.add_argument("--judge", help="a judge by name, such as openai:gpt-4o-mini, in place of the rule")
    parser.add_argument("--labelled", type=int, default=15, help="with --judge: labelled texts a concept, 60 at most")
    options = parser.parse_args()
    started = time.perf_counter()
    (by_judge if options.judge else by_rule)(options)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
