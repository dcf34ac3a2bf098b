"""What a judge is expected to be asked and to cost, from the prompts themselves, before anything is sent."""

import math
import random
from typing import TYPE_CHECKING

from fade_lens.llm.budget import CHARS_PER_TOKEN, EXPECTED_THOUGHTS, Estimate, Number
from fade_lens.llm.request import Message

if TYPE_CHECKING:
    from fade_lens.judge.judge import Judge
    from fade_lens.judge.prompts import Prompts

NOTHING = Estimate(0, 0, 0, 0.0)
CONCEPT = "a description of a dozen words or so, to be replaced"


def rating(
    judge: "Judge", n_texts: int, text_tokens: Number, *, prompts: "Prompts | None" = None, size: int | None = None
) -> Estimate:
    """What rating `n_texts` texts of `text_tokens` tokens each for one concept asks and costs, retries not counted.

    Args:
        judge: who is asked.
        n_texts: how many texts.
        text_tokens: their mean length.
        prompts: other ones than the judge's.
        size: texts a request, where it is not the judge's.
    """
    prompts, size = prompts or judge.prompts, size or judge.texts_per_request
    if not n_texts:
        return NOTHING
    if judge.rating == "single":
        from fade_lens.judge import single

        calls = n_texts + len(single.BACKGROUND)
        return reckoned(
            judge, calls, calls * tokens(prompts.single_messages(CONCEPT, "")) + n_texts * text_tokens, calls
        )
    calls = math.ceil(n_texts / size)
    prompt = calls * tokens(prompts.rating_messages(CONCEPT, {}, tag=100)) + n_texts * (text_tokens + 18)
    return reckoned(judge, calls, prompt, n_texts * 12 + calls * 8)


def writing(judge: "Judge", n_texts: int, text_tokens: Number) -> Estimate:
    """What writing `n_texts` texts of `text_tokens` tokens each for one concept asks and costs, retries not counted."""
    if not n_texts:
        return NOTHING
    calls = math.ceil(n_texts / judge.texts_per_set)
    messages = judge.prompts.writing_messages(CONCEPT, 10, variation=1, tag=100, rng=random.Random(0))
    return reckoned(judge, calls, calls * tokens(messages), n_texts * min(text_tokens, 60))


def reckoned(judge: "Judge", calls: int, prompt_tokens: Number, completion_tokens: Number) -> Estimate:
    """An estimate with its price; a reasoning model's thoughts are added to the completion's tokens.

    Args:
        judge: who is asked.
        calls: how often.
        prompt_tokens: of all prompts together.
        completion_tokens: of all answers together, without thoughts.
    """
    completion_tokens += EXPECTED_THOUGHTS * calls if judge.reasons else 0
    cost = judge.price_of(prompt_tokens, completion_tokens)
    return Estimate(calls, round(prompt_tokens), round(completion_tokens), cost)


def tokens(messages: list[Message]) -> float:
    """About how many tokens a chat has."""
    return sum(len(message["content"]) for message in messages) / CHARS_PER_TOKEN
