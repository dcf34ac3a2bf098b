"""Descriptions by their meaning, or by their words."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.files import table_of
from fade_lens.data.descriptions import read_descriptions
from fade_lens.data.embedding import MODEL, check_embedding, embed

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("meaning", "words")


def search(
    descriptions: Any, query: str, k: int = 10, *, method: str = "meaning", model: str = MODEL
) -> "pd.DataFrame":
    """The `k` descriptions that are nearest to a query, the nearest first.

    Args:
        descriptions: a dict `{index: text}`, Series, DataFrame, or CSV/JSON/JSONL file (see `read_descriptions`).
        query: what to look for.
        method: "meaning": the cosine of sentence embeddings (extra `similarity`); "words": the cosine of words, those that few
            descriptions have counting more (TF-IDF), which needs nothing. What is missing is never replaced by the other.
        model: the embedding model, by its name on the Hugging Face hub or its folder; the default needs no hub.

    Returns:
        Columns index, description, similarity (at most 1) and origin. By words, descriptions that share none with the query are left out.

    Raises:
        InputError: an empty query, a `k` below 1, an unknown method, descriptions that cannot be used.
        MissingExtraError: "meaning" without the extra `similarity`.
    """
    if not query.strip():
        raise InputError(Argument("query"), f" is {query!r}; give some words to look for")
    if k < 1:
        raise InputError(Argument("k"), f" is {k}; give at least 1")
    if method not in METHODS:
        raise InputError(
            Argument("method"), f" is {method!r}; give one of {', '.join(map(repr, METHODS))}{suggest(method, METHODS)}"
        )
    if method == "meaning":
        check_embedding("Searching by meaning (method='words' searches by words)")
    found = read_descriptions(descriptions)
    texts = [d.text for d in found]
    if method == "meaning":
        rows = embed([query, *texts], model)
        likeness = rows[1:] @ rows[0]
    else:
        likeness = by_words(query, texts)
    order = np.argsort(-likeness, kind="stable")[:k]
    return table_of(
        {
            "index": found[i].index,
            "description": found[i].text,
            "similarity": float(likeness[i]),
            "origin": found[i].origin,
        }
        for i in order.tolist()
        if method == "meaning" or likeness[i] > 0
    ).reindex(columns=["index", "description", "similarity", "origin"])


def by_words(query: str, texts: Sequence[str]) -> Float[np.ndarray, "text"]:
    """The cosine of each text's words with the query's, each word weighted by the logarithm of how few texts have it.

    >>> by_words("a red house", ["the red house", "a dog", "red"]).round(2)
    array([0.61, 0.44, 0.47])
    """
    counts = [Counter(words(text)) for text in texts]
    texts_with = Counter(word for count in counts for word in count)

    def weight(word: str) -> float:
        return float(np.log((1 + len(texts)) / (1 + texts_with[word])) + 1)

    def weighted(count: Counter[str]) -> dict[str, float]:
        return {word: n * weight(word) for word, n in count.items()}

    def size(row: dict[str, float]) -> float:
        return float(np.sqrt(sum(value**2 for value in row.values()))) or 1.0

    wanted = weighted(Counter(words(query)))
    rows = [weighted(count) for count in counts]
    return np.array(
        [sum(v * row.get(word, 0.0) for word, v in wanted.items()) / (size(row) * size(wanted)) for row in rows]
    )


def words(text: str) -> list[str]:
    """Words in small letters; what is no word (`!`, `=>`) a character each.

    >>> words("The word 'new'!")
    ['the', 'word', "'", 'new', "'", '!']
    """
    return re.findall(r"\w+|[^\w\s]", text.casefold())
