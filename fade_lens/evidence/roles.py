"""The four roles of evidence: what is shown, refined on, chosen on and tested on, disjoint by document."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int

from fade_lens.data.corpus import Corpus

if TYPE_CHECKING:
    from fade_lens.subject.tokens import TokenizedTexts

Role = Literal["show", "refine", "select", "test"]
ROLES: tuple[Role, ...] = ("show", "refine", "select", "test")
"""An explainer reads *show*; a search gets feedback from *refine*; candidates are chosen on *select*; scores are measured on *test*."""
SHARES = (0.40, 0.15, 0.15, 0.30)
"""The share of the documents that has each role."""
DUPLICATE = 32
"""Tokens that two documents share, at the same place of the grid, to count as duplicates; also any whole text."""


def roles_of(tokens: "TokenizedTexts", marks: Sequence[bytes], seed: int) -> Int[np.ndarray, " text"]:
    """The role of every text, as its place in `ROLES`.

    A document's role is a hash of the seed and of the document: the same for every feature, context and model, whatever the order of
    features or documents. Documents that share a whole text, or a window of `DUPLICATE` tokens, have one role.

    Args:
        tokens: the corpus; of a document in several texts all have its role.
        marks: a hash of each document (`marks_of`).
        seed: of the run.
    """
    parent: dict[int, int] = {}
    first: dict[bytes, int] = {}

    def root(document: int) -> int:
        while (above := parent.setdefault(document, document)) != document:
            parent[document] = document = parent[above]
        return document

    starts, step = tokens.offsets[:-1] + leads(tokens), DUPLICATE * tokens.ids.itemsize
    for start, end, document in zip(starts, tokens.offsets[1:], tokens.documents.tolist(), strict=True):
        row = tokens.ids[start:end].tobytes()
        for part in {row, *(row[at : at + step] for at in range(0, len(row) - step + 1, step))} if row else ():
            if (known := first.setdefault(digest(part), document)) != document:
                parent[root(document)] = root(known)
    least: dict[int, bytes] = {}
    for document in set(tokens.documents.tolist()):
        top, mark = root(document), marks[document]
        least[top] = min(least[top], mark) if top in least else mark
    edges = np.cumsum(SHARES)[:-1]
    role = {top: int(np.searchsorted(edges, share(seed, mark), side="right")) for top, mark in least.items()}
    return np.array([role[root(document)] for document in tokens.documents.tolist()], dtype=np.int8)


def marks_of(corpus: Corpus) -> list[bytes]:
    """A hash of each document of a corpus, as it was given: text, token ids or messages."""
    documents = corpus.texts if corpus.texts is not None else corpus.tokens or corpus.conversations or ()
    given = (document if isinstance(document, str) else json.dumps(document, sort_keys=True) for document in documents)
    return [digest(text.encode("utf-8", "surrogatepass")) for text in given]


def evidence_id(marks: Sequence[bytes], seed: int) -> str:
    """What the roles rest on: the seed, and a hash of the corpus' documents in any order."""
    return f"{seed}:{digest(b''.join(sorted(marks))).hex()[:16]}"


def leads(tokens: "TokenizedTexts") -> Int[np.ndarray, " text"]:
    """How many tokens stand before each text's own: 1 for a BOS."""
    first = np.minimum(tokens.offsets[:-1], max(len(tokens.special) - 1, 0))
    return (tokens.special[first] & (tokens.lengths > 0)).astype(np.int64) if len(tokens.special) else tokens.lengths


def digest(data: bytes) -> bytes:
    """A short hash."""
    return hashlib.blake2b(data, digest_size=16).digest()


def share(seed: int, mark: bytes) -> float:
    """A number in [0, 1) of its own for a seed and a document."""
    return int.from_bytes(digest(b"role %d " % seed + mark)[:8], "big") / 2**64
