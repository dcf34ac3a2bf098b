"""What an audit, or anybody, adds to the page of a run: verdicts, severities, suggestions, links, descriptions without metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError
from fade_lens._util.reasons import Flag
from fade_lens.explainers.base import Explanation

Rows = tuple[tuple[str, str], ...]
"""Name and value, in the order in which they are shown."""


@dataclass(frozen=True)
class CardNotes(Brief):
    """What is added to one description; everything is optional, everything is shown as text.

    Attributes:
        verdict: one or two words to filter by, such as "swapped"; empty: none.
        severity: what the table is sorted by where any description has one, larger is worse; it is not shown.
        suggestion: what to do, in a sentence, such as the better description or the feature it belongs to.
        flags: beside those of the result; their kinds can be filtered by.
        facts: further rows of the card, such as ("explainer", "gpt-4o-mini") or ("eleuther_fuzz", "0.81").
        links: name and address, such as ("Neuronpedia", "https://www.neuronpedia.org/gpt2-small/8-res-jb/9").

    Raises:
        InputError: an address that is not http or https.
    """

    verdict: str = ""
    severity: float | None = None
    suggestion: str = ""
    flags: tuple[Flag, ...] = ()
    facts: Rows = ()
    links: Rows = ()

    def __post_init__(self) -> None:
        for name, url in self.links:
            if not is_link(url):
                raise InputError(f"link {name!r} is {url!r:.120}; give an http or https address")


@dataclass(frozen=True)
class Unscored(Brief):
    """A feature or description that has no metrics (missing, empty, refused by a flag or an explainer): a row of the table with a small card."""

    index: int
    text: str = ""
    notes: CardNotes = field(default_factory=CardNotes)
    why: str = "not evaluated"
    explanation: Explanation | None = None


@dataclass(frozen=True)
class Notes(Brief):
    """What is added to a page.

    Attributes:
        cards: by `result.description.words`; a description that is not named is shown as it is.
        unscored: rows for what has no `Result`.
        facts: further rows of the page's head, such as ("Neuronpedia source", "gpt2-small/8-res-jb").
    """

    cards: Mapping[str, CardNotes] = field(default_factory=dict[str, CardNotes])
    unscored: tuple[Unscored, ...] = ()
    facts: Rows = ()


def is_link(url: str) -> bool:
    """Whether an address may stand behind a link: http or https with a host, and nothing unseen in it.

    >>> is_link("https://www.neuronpedia.org/gpt2-small/8-res-jb/9"), is_link("javascript:alert(1)")
    (True, False)
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and url.isprintable() and " " not in url
