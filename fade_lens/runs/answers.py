"""Can the model still say what should follow a prompt, with an SAE in the place of its activations?"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fade_lens._util.errors import Argument, InputError
from fade_lens.generation.arms import Arm, answered
from fade_lens.subject.hooks import special_tokens
from fade_lens.subject.reconstruction import Reconstruction
from fade_lens.subject.tokens import decode, tokenize, tokenizer_of, whole_tokens

ARMS: tuple[Arm, ...] = ("sae", "zero", "mean")


class Asked(NamedTuple):
    """A prompt, its answer, the prompt's tokens, and the answer's first token."""

    prompt: str
    answer: str
    ids: tuple[int, ...]
    token: int


def asked_of(made: Reconstruction, prompts: Mapping[str, str]) -> Iterator[Asked]:
    """Prompts as an SAE's model reads them. Raises `InputError` where a prompt or its answer has no token, or the context is too short."""
    if not isinstance(prompts, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(Argument("prompts"), f" is {prompts!r:.80}; give a dict of prompts and their answers")
    for prompt, answer in prompts.items():
        read = tokenize(made.model, [prompt], context=int(made.model.cfg.n_ctx), prepend_bos=made.features.prepend_bos)
        following = next_tokens(tokenizer_of(made.model), prompt, answer)
        if read.n_truncated or read.special.all() or not following:
            what = "is longer than the model's context" if read.n_truncated else "has no token, or its answer has none"
            raise InputError(Argument("prompts"), f": {prompt[:40]!r} {what} (answer {answer[:40]!r})")
        yield Asked(prompt, answer, tuple(read[0].tolist()), following[0])


def next_tokens(tokenizer: Any, prompt: str, answer: str) -> list[int]:
    """The tokens of an answer as they stand behind its prompt: alone, some tokenizers begin it with a space of its own."""
    before, whole, alone = whole_tokens(tokenizer, [prompt, prompt + answer, answer])
    return whole[len(before) :] if whole[: len(before)] == before else alone


def said(name: str, made: Reconstruction, mean: Float[Tensor, " d_out"], asked: Asked, *, replaced: bool) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row for the model as it is and, where anything may be `replaced`, for each arm: the answer's rank, from 1, and its probability."""
    tokenizer = tokenizer_of(made.model)
    special = special_tokens(tokenizer)
    counted = torch.tensor([[i not in special for i in asked.ids]])
    for arm, rank, probability in answered(made, mean, asked.ids, counted, asked.token, ARMS if replaced else ()):
        row = {"sae": name, "prompt": asked.prompt, "answer": asked.answer, "token": decode(tokenizer, [asked.token])}
        yield row | {"arm": arm, "rank": rank, "probability": probability}
