"""Shared fixtures: a tiny random model with a word tokenizer, and the real Gemma 3 270M with the demo's SAE."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  the hook below finds it by name

# Every shape in a signature is checked while the tests run.
install_import_hook("fade_lens", "tests.typecheck.check")

import pytest
from sae_lens import SAE, HookedSAETransformer

from tests.tiny import tiny_model


@pytest.fixture
def tiny() -> HookedSAETransformer:
    """A random two-layer model over a vocabulary of words."""
    return tiny_model()


@pytest.fixture(scope="session")
def gemma() -> HookedSAETransformer:
    """The real Gemma 3 270M; the extra `demo`, which `dev` includes, brings it."""
    from fade_lens import demo

    return demo.model()


@pytest.fixture(scope="session")
def demo_sae() -> SAE:
    from fade_lens import demo

    return demo.sae()


@pytest.fixture
def embedding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in for sentence-transformers: words are known by their own vectors."""
    from fade_lens.data.embedding import encoder

    monkeypatch.syspath_prepend(Path(__file__).parent / "stand_ins")
    monkeypatch.delitem(sys.modules, "sentence_transformers", raising=False)
    encoder.cache_clear()
    yield
    encoder.cache_clear()
    sys.modules.pop("sentence_transformers", None)
