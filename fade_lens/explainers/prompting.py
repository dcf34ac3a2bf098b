"""What explainers say to a language model, in this project's own words, and how its answers are read.

Texts are data: each stands between tags that carry a number drawn for the feature, so that nothing inside can close them.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens._util.wording import one_line
from fade_lens.data.leaks import REFUSAL, leaked, once, recited
from fade_lens.data.rules import Rule, same_rule, strength_of
from fade_lens.evidence.marking import marks
from fade_lens.evidence.windows import Place, Window
from fade_lens.explainers.base import LONGEST, REASONS, FeatureEvidence
from fade_lens.explainers.showing import Showing, marked
from fade_lens.judge.parsing import parse_fields
from fade_lens.judge.prompts import cut
from fade_lens.llm.chat import Answer
from fade_lens.llm.request import Message, Structure, object_of

AROUND = (
    re.compile(r"[\"'“](?P<text>[^\"'“”]*)[\"'”]"),
    re.compile(r"(?P<sign>\*{1,3}|_{1,3}|`{1,3})(?P<text>[^*_`]+)(?P=sign)"),
    re.compile(r"<(?P<tag>\w+)(?:\s[^<>]*)?>(?P<text>.+)</(?P=tag)>"),
    re.compile(r"(?P<text>.+?)\s*(?:</?(?:description|answer|output|response|result|unit|excerpt)>)+"),
)
"""What may stand around a whole description: quotes, signs of Markdown, a pair of tags, tags of an answer."""
_REACTS = r"(?:reacts?\s+to|responds?\s+to|activates?\s+(?:on|for|at)|fires?\s+(?:on|for|at)|is\s+(?:most\s+)?active\s+(?:on|for|at)|detects?|represents?)"
LAYERS = 5
"""Of what stands around a description that are taken off."""
LEAD = re.compile(
    rf"^(?:<(?:description|answer|output|response|result)>|#+\s+|[-*•]\s+(?=\w)|\W*(?:final\s+)?(?:description|answer|property)\W*:\W*?\s+|(?:the|this)\s+(?:unit|neuron|latent|feature)\s+{_REACTS}:?\s+)", re.I,
)  # fmt: skip
"""What may stand before it."""
OURS = re.compile(
    r"</?(?:excerpt|silent)\b|\bexcerpts?\s+\d|\(strength:|\bid=\\?[\"']\d{3}\b|\bthe\s+unit\s+is\b|^\s*[{\[]\s*\"description\"",
    re.I,
)
"""Signs of our form in a description."""
COPIED = 8
"""Words from which a description may be an excerpt that was copied."""
NOTHING = frozenset(
    {
        "", "none", "null", "nothing", "n/a", "unknown", "no concept", "nothing common", "no common concept", "no pattern",
        "no clear pattern", "no common pattern", "unclear", "no description", "random", "random tokens",
    }
)  # fmt: skip
"""Descriptions that say that there is none."""
NO_CONCEPT = re.compile(
    r"^\W*(?:(?:there\s+(?:is|are|was|were)|I\s+(?:see|find|found))\s+)?(?:no|not\s+any|not\s+enough|insufficient)\s+(?:\w+\s+){0,3}?"
    r"(?:patterns?|propert(?:y|ies)|concepts?|themes?|excerpts?|descriptions?|information|context|data|commonalit(?:y|ies)|similarit(?:y|ies)|connections?)\b(?!\s+of\b)"
    r"|^\W*nothing\s+(?:\w+\s+){0,3}?(?:common|shared?|excerpts)\b", re.I,
)  # fmt: skip
"""How an answer in words begins that says so."""
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
BRIEF = """\
You say what words have in common. You get excerpts from documents{marked}. Say in at most {words} words what these have in common: the word \
itself in quotes where it is one word, else their kind or their topic. When they have nothing in common, leave the description empty ("").
"""
BRIEF_MARKED = ", in which some words or signs stand between {opens} and {closes}"
MARKED = ", and the tokens at which it is most active stand between {opens} and {closes}"
WRITES = """\
You find out what one unit of a language model makes it write. You are given tokens that the unit makes likelier or less likely as the next \
token; they are pieces of words, and some come by accident. Say what the likelier ones share, or what the model would write about.

How to describe it
- Name the concept itself: a word, a kind of word, a topic, a language, a construct of code. Do not write about the unit or these lists.
- Lists of tokens that become less likely only help to tell what the concept is not.
- At most {words} words, no full sentence. When the unit promotes one word in many spellings, quote that word.
- When the tokens share nothing, leave the description empty ("").
"""
STRENGTH = "Below an excerpt, marked tokens are listed with their strength from 1 to 10, where 10 is the strongest that the unit ever is.\n"
IN_ORDER = """\
Try these in order, and take the first that holds: the tokens at the peaks are the same or of one kind; the tokens right after the \
peaks are the same or of one kind (then write: makes the model say …); the promoted tokens share something; the excerpts share a theme.
"""
UNLIKE = """\
Further excerpts come after these in which the unit is silent, though they look much like the others or hold the same words. Describe \
what sets the first apart: the description should hold for them and fail for the silent ones.
"""
MISSED = "In these excerpts the unit is active, and no rule, or only a weak one, holds for them:"
FALSE = "In these excerpts the unit is silent, though a rule holds for them:"
REVISE = """\
The rules were tried on other excerpts. {failed}

Give a better list of rules, complete and in the same form: keep what is right, and reword, add, join or leave out rules as these excerpts ask for."""
SILENT = "In these the unit is silent:"
REASON_FIRST = 'First think in a few sentences, in the field "thoughts"; then decide.\n'
RULES = """\
The unit may react to several things. Give up to {rules} rules, the most important first; one is often enough. Each rule describes, as \
above, one thing that the unit reacts to, and its strength: a whole number from 0 (hardly at all) to 5 (as strongly as it ever does). Leave \
the list empty when you find nothing.
"""
FORM = "Answer with a JSON object and nothing else: {form}"


@dataclass(frozen=True)
class Field:
    """What an answer holds: the name of its field, the schema of that, how it is written, and a made-up unit's description as one."""

    name: str
    schema: Mapping[str, Any]
    written: str
    example: Callable[[str], Any]


DESCRIPTION = Field("description", {"type": "string"}, '"…"', str)
_RULE = object_of(activates_on={"type": "string"}, strength={"type": "integer", "enum": [0, 1, 2, 3, 4, 5]})
RULE_LIST = Field(
    "rules",
    {"type": "array", "items": _RULE},
    '[{"activates_on": "…", "strength": 5}]',
    lambda text: [{"activates_on": text, "strength": 5}],
)


def form(field: Field, reasoning: bool) -> Structure:
    """The schema of an answer."""
    thoughts = {"thoughts": {"type": "string"}} if reasoning else {}
    return Structure.of(field.name, **thoughts, **{field.name: field.schema})


EXAMPLES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("The kettle was <<boiling>> by the time", "waited until the soup had come to a <<simmer>> and", "oil begins to <<sizzle>>, add the onions"),
        "words for liquids getting hot in cooking",
    ),
    (
        ("<<notwithstanding>> the late hour, they", "rights under this act <<notwithstanding>>, the court", "The rain <<notwithstanding>>, it was"),
        'the word "notwithstanding"',
    ),
    (
        ("for (int i <<= 0>>; i < n; i++)", "while count <<= limit>>:\n    count += 1", "let total <<= 0>>; // cents"),
        "an assignment or comparison sign with its value in code",
    ),
)  # fmt: skip
"""Made-up units: excerpts, and a good description."""
OWN = (
    *(words.replace("{words}", "20") for words in (TASK, BRIEF)), MARKED, BRIEF_MARKED, STRENGTH, IN_ORDER, UNLIKE, SILENT, REASON_FIRST, RULES,
    *(". ".join((*texts, said)) for texts, said in EXAMPLES),
)  # fmt: skip
"""All that a model reads but the feature's own excerpts: none of it describes a feature."""


def task(
    how: Showing, signs: tuple[str, str], field: Field, *, unlike: bool = False, reasoning: bool = False, rules: int = 0
) -> str:
    """The instructions."""
    words, about = (BRIEF, BRIEF_MARKED) if how.brief else (TASK, MARKED)
    about = about.format(opens=signs[0], closes=signs[1]) if how.mark is not None else ""
    parts = [words.format(marked=about, words=how.words)]
    parts += [STRENGTH] * bool(how.values) + [IN_ORDER] * how.in_order + [UNLIKE] * unlike
    return "\n".join([*parts, *[RULES.format(rules=rules)] * (field is RULE_LIST), answer_in(field, reasoning)])


def answer_in(field: Field, reasoning: bool) -> str:
    """How an answer is to be written."""
    thoughts = '"thoughts": "…", ' if reasoning else ""
    return "\n".join([*[REASON_FIRST] * reasoning, FORM.format(form=f'{{{thoughts}"{field.name}": {field.written}}}')])


def excerpts(
    windows: Sequence[Window], scale: float, how: Showing, signs: tuple[str, str], tag: int, name: str = "excerpt"
) -> str:
    """Windows as the model reads them, numbered."""
    shown = [cut(marked(window, scale, how, signs), MOST_CHARACTERS) for window in windows]
    return "\n".join(f'<{name} {n} id="{tag}">\n{text}\n</{name} {n} id="{tag}">' for n, text in enumerate(shown, 1))


def about_peaks(windows: Sequence[Window], how: Showing) -> str:
    """The tokens of the peaks and, where the model is told to look at them, those after them."""
    told = f"Tokens at the peaks: {listed([w.tokens[w.peak] for w in windows if w.tokens])}"
    after = [window.tokens[window.peak + 1] for window in windows if window.peak + 1 < len(window.tokens)]
    return f"{told}\nTokens right after the peaks: {listed(after)}" if how.in_order else told


def about_tokens(evidence: FeatureEvidence) -> list[str]:
    """The tokens that the feature makes likelier and less likely, as far as they are to be shown."""
    told = (
        ("the unit promotes most", evidence.promoted),
        ("the unit suppresses most", evidence.suppressed),
        ("become likelier when the unit is switched on by force", evidence.likelier),
        ("become less likely when the unit is switched on by force", evidence.unlikelier),
    )
    lines = [f"Tokens that {what}: {listed(tokens)}" for what, tokens in told if tokens]
    return ["\n".join(lines)] if lines else []


def listed(tokens: Sequence[str]) -> str:
    """Tokens as a list, quoted."""
    return ", ".join(json.dumps(token, ensure_ascii=False) for token in tokens)


def worked(n: int, how: Showing, signs: tuple[str, str], field: Field) -> list[Message]:
    """Made-up units, shown as the feature is, with good answers, as turns of the chat."""
    chat: list[Message] = []
    for texts, description in EXAMPLES[:n]:
        windows = [example(text, 1 - at / 4) for at, text in enumerate(texts)]
        shown = [excerpts(windows, 1.0, how, signs, 100), *([about_peaks(windows, how)] if how.peaks else [])]
        chat += [
            {"role": "user", "content": "\n\n".join(shown)},
            {"role": "assistant", "content": json.dumps({field.name: field.example(description)})},
        ]
    return chat


def example(text: str, activation: float) -> Window:
    """A window of a made-up unit, active on the words between marks."""
    tokens, active = list[str](), list[float | None]()
    for at, part in enumerate(re.split("<<|>>", text)):
        words = re.findall(r"\s*(?:\w+|[^\w\s])|\s+", part)
        tokens += words
        active += [activation * (at % 2)] * len(words)
    return Window(Place(0, 0, len(tokens)), tuple(tokens), (0,) * len(tokens), tuple(active))


def tag_of(index: int) -> int:
    """The number that a feature's tags carry."""
    return 100 + stream(0, "tag", index) % 900


def read_description(answer: Answer, windows: Sequence[Window] = ()) -> str | Reason | None:
    """A description in an answer, or why it holds none; None where it cannot be read and may be asked for again.

    Args:
        answer: the model's.
        windows: what it was shown.
    """
    said = answer.content
    fields = parse_fields(said)
    text = (fields["description"] or "") if fields and "description" in fields else said if fields is None and "\n" not in said.strip() else None  # fmt: skip
    if isinstance(text, list):
        text = ", ".join(map(str, cast("list[Any]", text)))
    if isinstance(text, str) and text and answer.finish_reason == "length" and said.rstrip().endswith(text.rstrip()):
        return None  # the answer ended in the midst of it
    return sound(text, windows) if isinstance(text, str) else None


def read_rules(answer: Answer, windows: Sequence[Window] = ()) -> tuple[Rule, ...] | Reason | None:
    """All rules in an answer, whatever their number, or why it holds none; None where it cannot be read and may be asked for again.

    A rule that is the model's reasoning, or whose strength is no whole number from 0 to 5, is none; rules that say the same are one.
    """
    fields = parse_fields(answer.content)
    rows = None if fields is None else fields.get("rules")
    if not isinstance(rows, list):
        return None
    found: dict[tuple[str, ...], Rule] = {}
    whys: list[Reason] = []
    for row in cast("list[Any]", rows):
        text, strength = (
            (row.get("activates_on"), strength_of(row.get("strength"))) if isinstance(row, dict) else (None, None)
        )
        read = sound(text, windows) if isinstance(text, str) and strength is not None else None
        if isinstance(read, Reason):
            whys.append(read)
        elif read is not None and strength is not None:
            words, before = found.get(same_rule(read), (read, 0))
            found[same_rule(read)] = words, max(before, strength)
    if found:
        return tuple(found.values())
    return None if rows and not whys else next(iter(whys), Reason("nothing_common", REASONS["nothing_common"]))


def sound(text: str, windows: Sequence[Window] = ()) -> str | Reason | None:
    """A description that says something, or why it does not; None for the model's prompt or reasoning.

    What stands around it is taken off: quotes, signs of Markdown, tags, our marks, "The unit reacts to". What repeats the prompt, or one of
    the excerpts word for word, is none.

    Args:
        text: what the model gives as a description.
        windows: what it was shown.
    """
    if len(text) > 8 * LONGEST:  # one that is said over and over is shorter once
        return None
    for sign in marks(windows):
        text = text.replace(sign, "") if windows else text
    text = once(bare(one_line(text)))
    if text.rstrip(".").lower() in NOTHING or NO_CONCEPT.match(text):
        return Reason("nothing_common", REASONS["nothing_common"])
    if REFUSAL.search(text):
        return Reason("refused", f"refused: {text:.200}")
    copied = recited(text, [window.text for window in windows]) if len(text.split()) >= COPIED else []
    # A string that many excerpts hold may be all that there is to say.
    leaks = leaked(text) or OURS.search(text) or recited(text, OWN) or 0 < len(copied) < max(2, len(windows) / 4)
    return None if leaks or len(text) > LONGEST or not re.search(r"\w|[^\w\s…]", text) else text


def bare(text: str) -> str:
    """A text without what stands around the whole of it."""
    for _ in range(LAYERS):
        before = text
        for around in AROUND:
            text = found["text"] if (found := around.fullmatch(text)) else text
        if (text := LEAD.sub("", text).strip()) == before:
            break
    return text
