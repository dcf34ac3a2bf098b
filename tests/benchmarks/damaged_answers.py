"""What is read of damaged answers: by `fade_lens.judge.parsing`, and by `json-repair` (to be installed beside it) under the same check of ids.

`python -m tests.benchmarks.damaged_answers`: a few seconds. "Wrong" is a rating that the whole answer does not give, or a text that is not one
of those written.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from fade_lens.judge.parsing import parse_ratings, parse_texts
from tests.judge.test_parsing import damaged, rated_by_chance

N = 10_000
WORDS = [
    "the",
    "a",
    "cat",
    "sat",
    "on",
    "it's",
    "“quoted”",
    "said:",
    '"no",',
    "[1]",
    "{so}",
    "Don't",
    "and/or",
    "3,5",
    "one;",
    "two.",
    "Zwei\nZeilen",
    "über",
    "(maybe)",
    "end",
]


def repaired(**options: Any) -> Callable[[str], Any]:
    """`json-repair`'s reading, None where it raises."""
    from json_repair import loads

    def read(answer: str) -> Any:
        try:
            return loads(answer, **options)
        except ValueError:
            return None

    return read


def ratings_with(read: Callable[[str], Any]) -> Callable[[str, list[str]], dict[str, int]]:
    """Repaired answers under the parser's own check of ids and values."""
    return lambda answer, names: parse_ratings(json.dumps(read(answer)), names)


def texts_of(value: Any) -> Iterator[str]:
    """All strings of a list in a repaired answer."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from [inner] if isinstance(inner, str) and isinstance(value, list) else texts_of(inner)


def ratings(read: Callable[[str, list[str]], dict[str, int]]) -> str:
    rng, wrong, right, total = random.Random(0), 0, 0, 0
    for _ in range(N):
        given, answer = rated_by_chance(rng)
        found = read(damaged(answer, rng), re.findall(r"\b\d{3}\b", answer))
        wrong, right = wrong + len(found.items() - given.items()), right + len(found.items() & given.items())
        total += len(given)
    return f"{wrong:,} wrong and {right:,} right ratings of {total:,}"


def texts(read: Callable[[str], list[str]]) -> str:
    rng, wrong, right = random.Random(0), 0, 0
    for _ in range(N // 3):
        written = {" ".join(rng.choices(WORDS, k=rng.randrange(3, 12))).strip() for _ in range(6)}
        found = set(read(json.dumps({"texts": [*written]}, ensure_ascii=False).replace('\\"', '"')))
        wrong, right = wrong + len(found - written), right + len(found & written)
    return f"{wrong:,} wrong and {right:,} right texts with quotes that are not escaped"


def main() -> None:
    print("ours:", ratings(parse_ratings), "|", texts(lambda answer: parse_texts(answer).texts))
    for name, options in {"json-repair": {}, "json-repair, strict": {"strict": True}}.items():
        read = repaired(**options)
        print(f"{name}:", ratings(ratings_with(read)), "|", texts(lambda answer: list(texts_of(read(answer)))))  # noqa: B023


if __name__ == "__main__":
    main()
