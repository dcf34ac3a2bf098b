"""Shared fixtures: a tiny random model with a word tokenizer, and the real Gemma 3 270M with the demo's SAE."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("COLUMNS", None)
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # each its share of the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  the hook below finds it by name

PACKAGE = Path(__file__).parents[1] / "fade_lens"
SHAPED = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if "jaxtyping" in path.read_text(encoding="utf-8")
]
# Every shape in a signature is checked while the tests run. Modules without shapes are left to pyright: each call checked costs twenty microseconds.
install_import_hook(SHAPED, "tests.typecheck.check")

import pytest
from sae_lens import SAE, HookedSAETransformer

from tests.tiny import tiny_model

REAL = frozenset(
    path.relative_to(Path(__file__).parents[1]).as_posix()
    for path in Path(__file__).parent.rglob("test_*.py")
    if "mark.real" in path.read_text(encoding="utf-8")
)
"""Files with tests of the real model and judge."""


def pytest_configure(config: pytest.Config) -> None:
    """In several processes (`-n 2`) files are taken in the order of the hook below."""
    if getattr(config.option, "numprocesses", None):
        config.option.dist, config.option.loadscopereorder = "loadfile", False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests run in one process, and so do all `REAL` files': two real models at once take gigabytes, and slow each other threefold."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "real" if file in REAL else file

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests of the real model and judge, which take long, begin first."""
    if workers:
        items.sort(key=lambda item: item.nodeid.partition("::")[0] not in REAL)


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
