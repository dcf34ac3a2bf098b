"""Tokens as people read them: whole characters, and the text that a row of tokens makes."""

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise, takewhile
from typing import Any

HALF = "\ufffd"
"""What a tokenizer shows for bytes that are no whole character."""
_CUT_OFF = re.compile(f"(?<!{HALF}){HALF}{{1,3}}$")


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of some tokens, special ones included, no space cleaned away: what the model reads."""
    return str(tokenizer.decode([int(i) for i in ids], clean_up_tokenization_spaces=False))


def pieces(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """What each token adds to the text of all: joined they are `decode(tokenizer, ids)`.

    A character of several tokens stands whole at the last of them; the others are empty.
    """
    whole = decode(tokenizer, ids)
    single = tuple(decode(tokenizer, [i]) for i in ids)
    if HALF not in whole and "".join(single) == whole:  # as nearly always
        return single
    ends = accumulate((_shared(decode(tokenizer, ids[:n]), whole) for n in range(1, len(ids))), max)
    return tuple(whole[start:end] for start, end in pairwise([0, *ends, len(whole)])) if len(ids) else ()


def continued(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text that `ids` add to a prompt, the half of a character at its end left out."""
    whole = decode(tokenizer, [*prompt, *ids])
    return _CUT_OFF.sub("", whole[_shared(decode(tokenizer, prompt), whole) :])


def cut(tokenizer: Any, ids: Sequence[int], most: int) -> tuple[Sequence[int], str]:
    """The first `most` tokens, up to three fewer where those would end within a character, and their text."""
    text = decode(tokenizer, ids[:most])
    for end in range(most, max(most - 4, 0), -1) if len(ids) > most else ():
        if not (shorter := decode(tokenizer, ids[:end])).endswith(HALF):
            return ids[:end], shorter
    return ids[:most], text


def after_bos(ids: Sequence[int], bos: int | None) -> Sequence[int]:
    """The tokens without the BOS tokens at their beginning."""
    return ids[next((at for at, token in enumerate(ids) if token != bos), len(ids)) :]


def _shared(text: str, whole: str) -> int:
    """How many characters two texts begin with together; a character that is half there does not count."""
    known = text if whole.startswith(text) else text.rstrip(HALF)
    return (
        len(known)
        if whole.startswith(known)
        else sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(known, whole, strict=False)))
    )
