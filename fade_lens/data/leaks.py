"""What language models leave in a description that is none of it: their prompt, their reasoning, marks of chats, refusals."""

import re

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
    r"^\W*(?:(?:I(?:'|’)?m|I\s+am)\s+(?:very\s+)?(?:sorry|unable|not\s+able)|(?:I\s+)?apologi[sz]e|Sorry\b|"
    r"I\s+(?:cannot|can(?:'|’)t|won(?:'|’)t|will\s+not)\b|As\s+an?\s+(?:AI|language|large))",
    re.I,
)
"""How a refusal in words begins."""


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
