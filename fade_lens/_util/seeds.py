"""Random streams: all randomness of a run comes from one seed, by purpose."""

import hashlib

import numpy as np


def stream(seed: int, *purpose: object) -> int:
    """A seed of its own for a purpose such as `("rated texts", 9)`, the same on every machine."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # fits torch's signed 64-bit seeds


def rng(seed: int, *purpose: object) -> np.random.Generator:
    """A generator of its own for a purpose."""
    return np.random.default_rng(stream(seed, *purpose))
