"""Rules: what a structured description is made of, each a text with the strength of what it describes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from fade_lens._util.errors import InputError
from fade_lens._util.files import parse_json
from fade_lens._util.wording import one_line, quoted, same_words
from fade_lens.data.rows import is_null

Rule = tuple[str, int]
"""What a feature fires on, and how strongly: 0 (hardly) to 5 (as strongly as ever)."""
STRONGEST = 5
MOST_RULES = 20
"""Of a description; each is asked about alone."""


def rules_of(value: Any, where: str) -> tuple[Rule, ...]:
    """The rules in a cell of a table: a list, or one in JSON, of `[text, strength]` or `{"activates_on": text, "strength": strength}`.

    Rules of the same text are one, with the largest strength: it alone would count.

    Raises:
        InputError: no such list, more than `MOST_RULES`, a rule without a text, a strength that is no whole number from 0 to 5.
    """
    if is_null(value):
        return ()
    if isinstance(value, str):
        value = parse_json(value, f"{where}: 'rules'")
    if not isinstance(value := plain(value), list | tuple):
        raise InputError(
            f"{where}: 'rules' is {value!r:.80}; give a list of rules, such as [[\"names of animals\", 5]]"
        )
    if len(given := cast("Sequence[Any]", value)) > MOST_RULES:
        raise InputError(f"{where} has {len(given):,} rules, more than {MOST_RULES}; keep the strongest")
    found: dict[str, int] = {}
    for n, rule in enumerate(map(plain, given), 1):
        fields = cast("Mapping[str, Any]", rule) if isinstance(rule, Mapping) else {}
        pair = [fields.get("activates_on"), fields.get("strength")] if fields else rule
        if not isinstance(pair, list | tuple) or len(pair := cast("Sequence[Any]", pair)) != 2:
            raise InputError(f'{where}: rule {n} is {rule!r:.80}; give its text and its strength, as in ["names of animals", 5]')  # fmt: skip
        if not isinstance(text := pair[0], str) or is_null(text):
            raise InputError(f"{where}: rule {n} has no text ({text!r:.80}); leave it out or say what it is")
        if (strength := strength_of(plain(pair[1]))) is None:
            raise InputError(f"{where}: rule {n} ({text!r:.80}) has strength {pair[1]!r:.40}; give a whole number from 0 (hardly) to {STRONGEST} (as strongly as ever)")  # fmt: skip
        found[one_line(text)] = max(strength, found.get(one_line(text), 0))
    return tuple(found.items())


def plain(value: Any) -> Any:
    """Python's own list or number in place of NumPy's, which Parquet files and tables give."""
    return value.tolist() if hasattr(value, "tolist") else value


def strength_of(value: Any) -> int | None:
    """A strength from 0 to 5; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-5](\.0)?\s*(/\s*5)?\s*", value):
        return int(value.strip()[0])
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value in range(6) else None


def same_rule(text: str) -> tuple[str, ...]:
    """What the texts of two rules share that say the same: the words, whatever their case, quotes and punctuation; what they quote, as it stands.

    >>> same_rule("The word 'May'") == same_rule("the word “May”."), same_rule("the word 'May'") == same_rule("the word 'may'")
    (True, False)
    """
    return same_words(text) or one_line(text), *quoted(text)


def rules_in_words(rules: Sequence[Rule]) -> str:
    """Rules as one description, the strongest first, for what reads a sentence."""
    strongest = max((strength for _, strength in rules), default=0)
    weakly = ("", " (less strongly)")
    return "; or ".join(
        text + weakly[strength < strongest] for text, strength in sorted(rules, key=lambda rule: -rule[1])
    )
