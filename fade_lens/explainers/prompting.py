"""What explainers say to a language model, in this project's own words, and how its answers are read.

Texts are data: each stands between tags that carry a number drawn for the feature, so that nothing inside can close them.
"""

import json
import re
from collections.abc import Sequence

from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens._util.wording import one_line
from fade_lens.data.leaks import REFUSAL, leaked
from fade_lens.evidence.windows import Window
from fade_lens.explainers.base import LONGEST, REASONS, FeatureEvidence
from fade_lens.explainers.showing import Showing, marked, marks
from fade_lens.judge.parsing import parse_fields
from fade_lens.judge.prompts import cut
from fade_lens.llm.chat import Answer
from fade_lens.llm.request import Message, Structure

NOTHING = frozenset(
    {
        "", "none", "null", "nothing", "n/a", "unknown", "no concept", "nothing common", "no common concept", "no pattern",
        "no clear pattern", "no common pattern", "unclear", "no description", "random", "random tokens",
    }
)  # fmt: skip
"""Descriptions that say that there is none."""
MOST_CHARACTERS = 1200
"""Of an excerpt."""

TASK = """\
You find out what one unit of a language model reacts to. A unit has an activation at every token of a text. You are given \
excerpts, most of them cut from longer documents, in which it is active{marked}. Say what property the unit reacts to.

How to describe it
- Name the property itself: a word or a piece of a word, a kind of word, a topic, a tone, a layout, a place in a sentence, a \
language, a construct of code, or whatever follows. Do not write about the unit, its activations, or these excerpts.
- Be as specific as the excerpts allow and no more: the description should hold for nearly all of them, and fail for ordinary text. \
When the unit reacts to one string, quote that string.
- At most {words} words, no full sentence, no list of examples unless they are all there is.
- When you find nothing that the excerpts share, leave the description empty ("").
"""
MARKED = ", and the tokens at which it is most active stand between {opens} and {closes}"
STRENGTH = "Below an excerpt, marked tokens are listed with their strength from 1 to 10, where 10 is the strongest that the unit ever is.\n"
IN_ORDER = """\
Try these in order, and take the first that holds: the tokens at the peaks are the same or of one kind; the tokens right after the \
peaks are the same or of one kind (then write: makes the model say …); the promoted tokens share something; the excerpts share a theme.
"""
UNLIKE = (
    "Other excerpts, where the unit is silent, come after these. Describe what sets the first apart from the second.\n"
)
REASON_FIRST = 'First think in a few sentences, in the field "thoughts"; then decide.\n'
FORM = 'Answer with a JSON object and nothing else: {"description": "…"}'
FORM_REASONED = 'Answer with a JSON object and nothing else: {"thoughts": "…", "description": "…"}'

EXAMPLES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("The kettle was <<boiling>> by the time", "waited until the soup had come to a <<simmer>> and", "oil begins to <<sizzle>>, add the onions"),
        "words for liquids getting hot in cooking",
    ),
    (
        ("for (int i <<= 0>>; i < n; i++)", "while count <<= limit>>:\n    count += 1", "let total <<= 0>>; // cents"),
        "an assignment or comparison sign with its value in code",
    ),
)  # fmt: skip
"""Made-up units: excerpts, and a good description."""

TEXT = {"type": "string"}
DESCRIPTION = Structure.of("description", description=TEXT)
REASONED = Structure.of("description", thoughts=TEXT, description=TEXT)


def task(how: Showing, signs: tuple[str, str], *, unlike: bool = False, reasoning: bool = False, form: str = "") -> str:
    """The instructions."""
    about = MARKED.format(opens=signs[0], closes=signs[1]) if how.mark is not None else ""
    parts = [TASK.format(marked=about, words=how.words)]
    parts += [STRENGTH] * bool(how.values) + [IN_ORDER] * how.in_order + [UNLIKE] * unlike + [REASON_FIRST] * reasoning
    return "\n".join([*parts, form or (FORM_REASONED if reasoning else FORM)])


def excerpts(
    evidence: FeatureEvidence, windows: Sequence[Window], how: Showing, name: str = "excerpt", first: int = 1
) -> str:
    """Windows as the model reads them, numbered."""
    signs, tag = marks((*evidence.active, *evidence.silent)), tag_of(evidence.index)
    shown = [cut(marked(window, evidence.scale, how, signs), MOST_CHARACTERS) for window in windows]
    return "\n".join(
        f'<{name} {n} id="{tag}">\n{text}\n</{name} {n} id="{tag}">' for n, text in enumerate(shown, first)
    )


def about_peaks(windows: Sequence[Window]) -> str:
    """The tokens of the peaks, and those after them."""
    peaks = [window.tokens[window.peak] for window in windows if window.tokens]
    after = [window.tokens[window.peak + 1] for window in windows if window.peak + 1 < len(window.tokens)]
    return f"Tokens at the peaks: {listed(peaks)}\nTokens right after the peaks: {listed(after)}"


def about_logits(evidence: FeatureEvidence) -> str:
    """The tokens that the feature's direction promotes and suppresses."""
    told = (("promotes", evidence.promoted), ("suppresses", evidence.suppressed))
    return "\n".join(f"Tokens that the unit {what} most: {listed(tokens)}" for what, tokens in told if tokens)


def listed(tokens: Sequence[str]) -> str:
    """Tokens as a list, quoted."""
    return ", ".join(json.dumps(token, ensure_ascii=False) for token in tokens)


def worked(n: int, how: Showing, signs: tuple[str, str]) -> list[Message]:
    """Made-up units with good answers, as turns of the chat."""
    chat: list[Message] = []
    for texts, description in EXAMPLES[:n]:
        shown = [text.replace("<<", signs[0] if how.mark is not None else "").replace(">>", signs[1] if how.mark is not None else "") for text in texts]  # fmt: skip
        body = "\n".join(
            f'<excerpt {at} id="100">\n{text}\n</excerpt {at} id="100">' for at, text in enumerate(shown, 1)
        )
        chat += [
            {"role": "user", "content": body},
            {"role": "assistant", "content": json.dumps({"description": description})},
        ]
    return chat


def tag_of(index: int) -> int:
    """The number that a feature's tags carry."""
    return 100 + stream(0, "tag", index) % 900


def read_description(answer: Answer) -> str | Reason | None:
    """A description in an answer, or why it holds none; None where it cannot be read and may be asked for again."""
    said = answer.content
    fields = parse_fields(said)
    text = fields.get("description", None) if fields is not None else said if "\n" not in said.strip() else None
    if fields is not None and "description" in fields and text is None:
        text = ""
    return sound(text) if isinstance(text, str) else None


def sound(text: str) -> str | Reason | None:
    """A description that says something, or why it does not; None for the model's prompt or reasoning."""
    text = one_line(text).strip("\"'“” ")
    if text.rstrip(".").lower() in NOTHING:
        return Reason("nothing_common", REASONS["nothing_common"])
    if REFUSAL.search(text):
        return Reason("refused", f"refused: {text:.200}")
    return None if leaked(text) or len(text) > LONGEST or not re.search(r"\w|[^\w\s]", text) else text
