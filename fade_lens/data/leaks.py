"""What language models leave in a description that is none of it: their prompt, their reasoning, marks of chats, refusals."""

import re
from collections.abc import Sequence
from itertools import groupby

from fade_lens._util.wording import EXAMPLES, QUOTED, one_line

LEAKS = re.compile(
    r"""
    (?:MAX|TOP)_[A-Z]*_?ACTIVATING_(?:TOKENS?|TEXTS?) | TOKENS?_AFTER_ | TOP_(?:POSITIVE|NEGATIVE)_LOGITS | \bMethod\s+\d\s*: |
    \bThe\s+user\s+(?:wants|asked|asks|is\s+asking|provided|gave|has) | \bSelf[- ]correction\b | <think(?:ing)?>.{25,}?</think(?:ing)?> |
    \b(?:Okay|OK|Alright|Hmm|Wait),\s+(?:let|so|I|the|we|but|that|this|actually)\b | \bLet\s+me\s+(?:think|analy|look|re|see|check|start|try)\w* |
    \b(?:I|[Ww]e)\s+(?:need|have|should|must)\s+to\b | \bI(?:'ll|\s+will|'m|\s+am|\s+think|\s+can(?:not|'t)?)\b |
    \bAs\s+an?\s+(?:AI|large\s+language\s+model)\b | \bneuron\s+\d+\s+behavio(?:u)?r\b | \bthe\s+main\s+thing\s+this\s+neuron\b |
    ^\s*(?:Final\s+(?:answer|explanation)|Explanation|Thought|Analysis|Output|Response|Step\s+\d)\s*: | \bI\s+apologi[sz]e\b
    """,
    re.X,
)
# A marker of chat or thought that was left in stands where no label names one: glued to the words of the text, or round its sentences.
MARKS = re.compile(
    r"""
    ^\s*<\|\w+\|>(?:[A-Za-z]|\s*\n) | [A-Za-z](?:<\|\w+\|>|<end_of_turn>|<eos>|</s>)\s*$ | [.!?。！？]\s*(?:<\|\w+\|>|<end_of_turn>|<eos>|</s>)\s*$ |
    <(?:\|im_start\||start_of_turn|\|start\|)>\s*(?:user|model|assistant|system)\s*\n |
    ^\s*<think(?:ing)?>\s*(?:\n|[A-Z]|okay\b|so\b|let\b|the\b.*\.) | (?:[.!?]\s*|\n)</think(?:ing)?> | </think(?:ing)?>\s*\n
    """,
    re.X,
)
_NOUNS = r"(?:tokens?|tags?|markers?|delimiters?|separators?|headers?|turns?|boundar(?:y|ies)|templates?)\b"
NAMED = re.compile(rf"[|\w]>(?:\w*\s+)(?:(?!th|all\b|most\b)\w+\s+)?{_NOUNS}|{_NOUNS}\s+(?:\w+\s+)?<", re.I)
"""A marker that is named: beside a word for what it is."""
READ = 20_000
"""Characters of a description that are read; one that is longer is no description, and what is endless may be hostile."""
REFUSAL = re.compile(
    r"""
    ^\W*(?: (?:I['’]?m|I\s+am)\s+(?:very\s+)?(?:sorry|unable|not\s+able) | (?:I\s+|my\s+)?apologi(?:[sz]e|es)\b | (?:Sorry|Unfortunately)\b |
    (?:I|we)\s+(?:cannot|can['’]t|could\s+not|couldn['’]t|do\s+not|don['’]t|won['’]t|will\s+not)\b | As\s+an?\s+(?:AI|language|large)\b |
    (?:unable|impossible|not\s+(?:possible|able))\s+to\b | (?:it\s+is|it['’]s)\s+(?:not\s+possible|impossible|unclear)\b | please\s+(?:provide|give|share)\b |
    (?:cannot|can['’]t|could\s+not)\s+(?:be\s+)?(?:determine|identif|say|tell|see|find|describ|help)\w* | you\s+(?:have\s+not|haven['’]t|did\s+not|didn['’]t)\b |
    (?:es\s+)?tut\s+mir\s+leid | entschuldigung | ich\s+kann\b | lo\s+siento | no\s+puedo | je\s+(?:suis\s+désolé|ne\s+peux)\w* | désolée?\b | mi\s+dispiace | desculpe |
    извините | простите | к\s+сожалению | 抱歉 | 对不起 | 對不起 | 很遗憾 | 我无法 | 我無法 | 申し訳 | すみません | 죄송 )
    """,
    re.I | re.X,
)
"""How a refusal in words begins."""
RUN = 5
"""Words in a row that two texts share by more than chance."""
CLAUSE = re.compile(r"[.,:;!?()\n]")
"""What stands between clauses."""


def leaked(text: str) -> str:
    """The part of a description that is the explainer's prompt or reasoning; "" where there is none.

    What is quoted is what the description is about, and what follows "such as" are its examples: neither counts.

    >>> leaked("Okay, let me see. The marked tokens are"), leaked("the phrase 'let me see'")
    ('Okay, let', '')
    """
    text, line = text[:READ], one_line(text)[:READ]
    bare = QUOTED.sub(" ", line)
    found = LEAKS.search(re.sub(f"{EXAMPLES.pattern}[^.;:!?]*", " ", bare, flags=re.I))
    if not found and not NAMED.search(line):
        found = MARKS.search(text)
    return one_line(found[0]) if found else ""


def recited(text: str, sources: Sequence[str], *, share: float = 0.66, longest: int = 10) -> list[str]:
    """Which of some texts (a prompt, what it shows) another one only repeats: by runs of words, or as a clause of theirs.

    Args:
        text: a description.
        sources: what was read before it was written.
        share: of its words that stand in runs of `RUN` words of a source, from which it is recited.
        longest: words in a row that are recited whatever else it says.

    >>> rules = "Name a word or a piece of a word, a topic, or the place in a sentence."
    >>> bool(recited("A word or a piece of a word!", [rules])), recited("a piece of a verb that ends in -ing", [rules])
    (True, [])
    """
    return [source for source in sources if _recites(text, source, share, longest)]


def words_of(text: str) -> list[str]:
    """Words in small letters, articles left out."""
    return [word for word in re.findall(r"\w+", text.casefold()) if word not in ("a", "an", "the")]


def _recites(text: str, source: str, share: float, longest: int) -> bool:
    known, whole = [words_of(clause) for clause in CLAUSE.split(source)], words_of(source)
    runs = {tuple(whole[at : at + RUN]) for at in range(len(whole) - RUN + 1)}
    words, within = list[str](), list[bool]()
    for clause in map(words_of, CLAUSE.split(text)):
        words += clause
        within += [clause in known] * len(clause)
    for at in range(len(words) - RUN + 1):
        if tuple(words[at : at + RUN]) in runs:
            within[at : at + RUN] = [True] * RUN
    stretch = max((len(list(some)) for inside, some in groupby(within) if inside), default=0)
    return sum(within) >= share * len(words) > 0 or stretch >= longest


def once(text: str) -> str:
    """A text that says the same over and over (at least four times), as a model does that does not stop, only once; others as they are.

    >>> once("names of animals, names of animals, names of animals, names of animals, names of"), once("ha, ha")
    ('names of animals', 'ha, ha')
    """
    parts = text.split()
    words = [re.sub(r"^\W+|\W+$", "", part).casefold() for part in parts]
    for period in range(1, len(words) // 4 + 1):
        if words[period:] == words[:-period] and any(words[:period]):
            return re.sub(r"[\s.,;:]+$", "", " ".join(parts[:period]))
    return text
