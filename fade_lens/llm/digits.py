"""A local Hugging Face model that says at many places of one text which digit it expects next: a pass, where servers would take a call a place."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from fade_lens._util.errors import InputError

LARGEST = 9


class ExpectedDigits:
    """A causal language model and its tokenizer.

    Args:
        model: of transformers, or what is called and answers alike.
        tokenizer: of the same.
        name: for messages.

    Raises:
        InputError: its tokenizer has no single token for a digit behind a tab.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str = "the simulation model") -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        before = self.ids("a\t")
        self.digits: list[int] = []
        for digit in range(LARGEST + 1):
            own = self.ids(f"a\t{digit}")
            if own[:-1] != before or own[-1] in self.digits:
                raise InputError(f"{name} has no token of its own for the digit {digit} after a tab; take another simulation_model")  # fmt: skip
            self.digits.append(own[-1])

    def ids(self, text: str) -> list[int]:
        """The tokens of a piece of text, without special ones."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def expected(self, pieces: Sequence[str], filler: str) -> tuple[float, ...] | None:
        """The digit that the model expects after each of some pieces of one text, in one pass.

        Args:
            pieces: that follow one another; pieces are tokenized one by one, so that it is known where each ends.
            filler: stands after each piece but the last, in the digit's place.

        Returns:
            The mean over the digits' probabilities, from 0 to 9; None where the text is longer than the model's context.
        """
        import torch

        start = self.tokenizer.bos_token_id
        ids, ends = [] if start is None else [start], list[int]()
        for piece in pieces:
            ids += [*(self.ids(filler) if ends else []), *self.ids(piece)]
            ends.append(len(ids) - 1)
        if len(ids) > (getattr(self.model.config, "max_position_embeddings", None) or len(ids)):
            return None
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids], device=self.model.device)).logits[0, ends]
        chances = logits[:, self.digits].float().softmax(dim=-1)
        return tuple((chances @ torch.arange(LARGEST + 1.0, device=chances.device)).tolist())


@contextmanager
def told(name: str) -> Generator[None]:
    """What transformers raises where a model cannot be loaded, as an `InputError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(
            f"simulation_model {name!r} cannot be loaded ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "give a causal language model by its name on the Hugging Face hub, or its folder with safetensors and a tokenizer"
        ) from error


def check_digits(name: str) -> None:
    """Raise `InputError` where a model is not there, or has no token for a digit; no weight is read."""
    from transformers import AutoConfig, AutoTokenizer

    with told(name):
        AutoConfig.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name)
    ExpectedDigits(None, tokenizer, f"the model {name!r}")


@cache
def expected_digits(name: str, device: str) -> ExpectedDigits:
    """The model of a name on the Hugging Face hub, or of a folder, on a device; kept for the next call.

    Raises:
        InputError: it cannot be loaded; weights are read from safetensors alone, and no code of a model's is run.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with told(name):
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, use_safetensors=True)
        return ExpectedDigits(model.to(device).eval(), AutoTokenizer.from_pretrained(name), f"the model {name!r}")
