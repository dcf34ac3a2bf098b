"""Finds the answer in what a model says: after its thoughts and drafts, in whatever tags or channels these come."""

import re

_THOUGHT = r"(?:\w{1,20}:)?(?:think(?:ing)?|(?:inner_)?thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|inner_monologue)"
_THOUGHTS_BEGIN = re.compile(
    rf"<\|?(?:begin_of_|start_)?{_THOUGHT}(?:\s[^<>]{{0,100}})?\|?>|\[think\]|◁think▷|<(?:\|channel|unused94)>\s*thought",
    re.I,
)
_THOUGHTS_END = re.compile(
    rf"(?:<(?:/|\|(?:end_of_|end_|/)){_THOUGHT}\|?>|\[/think\]|◁/think▷|<channel\|>|<unused95>)(?:\s*<\|?(?:begin_of_solution|start_response)\|?>)?",
    re.I,
)
_STAGES = tuple(
    (re.compile(begin), re.compile(final))
    for begin, final in (
        (r".{0,60}<\|channel\|>", r"<\|channel\|>\s*final(?:\s*<\|constrain\|>)?[^<]{0,60}<\|message\|>"),
        (r"\s*analysis(?=[A-Z])", r"assistant\s*final"),  # the same where the server drops special tokens
        (r"(?i)\s*here are my reasoning steps", r"(?i)\[begin final response\]"),
        (r"(?i)\s*here(?:'s| is) my thought process", r"(?i)here(?:'s| is) my response\W"),
    )
)
"""How an answer begins whose thoughts come first without tags, and what its last part follows."""
_STAGE_END = re.compile(r"<\|(?:return|end|start|call|channel)\|>|\[end final response\]", re.I)
_FINAL = re.compile(
    r"(?:<\|?(?:answer|response|final_answer|final|output|solution|begin_of_solution|start_response)\|?>"
    r"|\bfinal (?:answer|version|list|output|json|result|set|texts|ratings)\b[^\[{\n]{0,40}[:：]\**)\s*(?=[\[{｛［]|```)",
    re.I,
)
"""What stands before an answer that drafts may precede."""


def without_thoughts(answer: str) -> str:
    """What follows a reasoning model's thoughts and drafts; nothing where they do not end. The opening tag may be missing: some servers drop it.

    Example:
        >>> without_thoughts("<think>Cats? Yes.</think>Cats.")
        'Cats.'
    """
    for begin, final in _STAGES:
        if begin.match(answer):
            parts = final.split(answer)
            answer = _STAGE_END.split(parts[-1])[0] if len(parts) > 1 else ""
    answer = _THOUGHTS_BEGIN.split(_THOUGHTS_END.split(answer)[-1])[0]
    return _FINAL.split(answer)[-1]
