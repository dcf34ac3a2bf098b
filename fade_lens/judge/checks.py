"""Checks of arguments, before anything is sent."""

from collections.abc import Sequence

from fade_lens._util.errors import Argument, InputError
from fade_lens.llm.budget import Number


def check_numbers(**limits: tuple[Number | None, Number, Number]) -> None:
    """Raises `InputError` for a number outside of its range.

    Args:
        limits: for each name (number, least, most); a number that is None is not checked.
    """
    for name, (value, least, most) in limits.items():
        if value is not None and not least <= value <= most:
            raise InputError(Argument(name), f" is {value}: give a number from {least:g} to {most:g}")


def check_rating(rating: str) -> None:
    """Raises `InputError` for an unknown way of rating."""
    if rating not in ("auto", "batched", "single"):
        raise InputError(Argument("rating"), f" is {rating!r}: give 'auto', 'batched' or 'single'")


def check_concept(concept: str) -> None:
    """Raises `InputError` for an empty concept."""
    if not concept.strip():
        raise InputError("concept is empty: give the description as text")


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list. Raises `InputError` for what are no texts."""
    if isinstance(texts, str):
        raise InputError("texts is one string: give a list of texts")
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"texts[{at}] is {type(text).__name__}: give strings")
    return list(texts)


def check_name(name: str) -> str:
    """A judge's name. Raises `InputError` for what is none."""
    if not name.strip() or not name.isprintable() or len(name) > 200:
        raise InputError(
            Argument("name"), f" is {name[:40]!r}: give a word or two that tell this judge from others, or leave it out"
        )
    return name.strip()
