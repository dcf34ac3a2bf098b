"""A stand-in for the package of this name: texts as sums of their words' vectors, words of one meaning sharing one."""

import re
import zlib

import numpy as np

MEANING = {"feline": "cat", "hound": "dog", "crimson": "red"}


class SentenceTransformer:
    def __init__(self, name: str) -> None:
        if name == "nobody/nothing":
            raise OSError("We couldn't connect\nCheck your internet connection")
        self.name = name

    def encode(self, texts, *, batch_size, normalize_embeddings, show_progress_bar):
        assert normalize_embeddings and not show_progress_bar
        words = [[MEANING.get(word, word) for word in re.findall(r"\w+", text.lower())] or [""] for text in texts]
        rows = [
            sum(np.random.default_rng(zlib.crc32(word.encode())).normal(size=64) for word in some) for some in words
        ]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)
