"""How texts are asked for: in sets, each asked for in other words, so that their texts differ."""

import math
import random
from dataclasses import dataclass

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument
from fade_lens._util.files import clean
from fade_lens.judge.asking import Asking, all_of
from fade_lens.judge.parsing import Texts, parse_texts
from fade_lens.judge.prompts import TEXTS
from fade_lens.llm.chat import Unanswered
from fade_lens.llm.request import Request

WRITING_ATTEMPTS = 4
LEAST_WRITTEN = 10
"""Texts that a set is asked for at least, where so many are wanted in all."""
LONGEST_WRITING = 4000
"""Tokens that one set may take at most: some models write no more than 4,096, and few sets come near."""


@dataclass(frozen=True)
class Written(Brief):
    """Texts that a judge wrote to express a concept."""

    texts: list[str]
    """Unique, in an order that depends on the answers alone."""
    failures: list[str]
    """One line for each request that gave nothing."""


@dataclass(kw_only=True)
class Writing(Asking):
    """Writes texts for one concept, in sets of which each is asked for in other words.

    Attributes:
        seed: draws the words of each request.
        set_size: texts that one request asks for at most; it shrinks where the server has room for fewer.
        temperature: of the model.
    """

    seed: int
    set_size: int
    temperature: float
    attempts: int = WRITING_ATTEMPTS

    form: str = "texts that it was asked to write"
    otherwise: tuple[str | Argument, ...] = ("Take a stronger model, or another one as ", Argument("writer"))

    async def check(self) -> None:
        """Raises `JudgeError` if no text is written."""
        texts, why, _ = await self._set(1, 2)
        if not texts:
            raise self.unable(why)

    async def write(self, n_texts: int) -> Written:
        """Up to `n_texts` unique texts. Where texts repeat or are missing, more sets are asked for, at most about twice as many as needed."""
        texts: dict[str, str] = {}
        failures: list[str] = []
        asked, most = 0, 2 * math.ceil(n_texts / self.set_size) + 2
        while len(texts) < n_texts and asked < most:
            before = len(texts)
            missing = n_texts - len(texts)
            sets = min(math.ceil(missing / self.set_size), most - asked)
            # Sets of equal size; not too few texts at a time, for then most would be those that are there already.
            size = min(self.set_size, max(math.ceil(missing / sets), min(n_texts, LEAST_WRITTEN)))
            results = await all_of(self._set(asked + 1 + at, size) for at in range(sets))
            asked += sets
            for written, failure, _ in results:
                failures += [failure] if failure else []
                for text in written:
                    texts.setdefault(" ".join(text.split()).casefold(), text)
            if len(texts) == before:
                break
            if (smallest := min(had_room for _, _, had_room in results)) < size:  # more sets, then
                self.set_size = smallest
                most = asked + 2 * math.ceil((n_texts - len(texts)) / smallest) + 2
        return Written(list(texts.values())[:n_texts], failures)

    async def _set(self, variation: int, n: int) -> tuple[list[str], str, int]:
        """One set's texts, why there are none, and how many could be asked for at a time.

        A cut or unreadable answer is asked for again, the fullest one kept; what is too long is asked for by halves.
        """
        rng = random.Random(clean(f"{self.seed}|{self.concept}|{variation}"))
        tag = rng.randrange(100, 1000)
        leaning = rng.getstate()
        messages = self.asked.prompts.writing_messages(self.concept, n, variation=variation, tag=tag, rng=rng)
        best, reason, attempt, tried = Texts([], False), "", 0, 0
        while tried < self.attempts:
            request = Request(
                kind="write",
                concept=self.concept,
                messages=messages,
                parameters={
                    "temperature": self.temperature,
                    "max_tokens": min(200 + 200 * n, LONGEST_WRITING),
                    "seed": rng.randrange(2**31),
                },
                expects=50 * n,
                structure=TEXTS,
                attempt=attempt,
                note={"seed": self.seed},
                parts=n,
            )
            too_long = False
            try:
                answer = await self.asked.send(request)
            except Unanswered as error:
                reason, too_long = str(error), error.too_long
                if not too_long or n == 1:
                    break
            else:
                read = Texts([], False) if answer.refusal else parse_texts(self.said(answer))
                best = max(best, read, key=lambda found: (len(found.texts), found.complete))
                reason = self.unread(answer, attempt)
                tried += self.counts(request, answer, bool(read.texts))
                attempt += 1
                if read.texts and read.complete:
                    break
            if too_long:
                n = math.ceil(n / 2)
                same = random.Random()
                same.setstate(leaning)
                messages = self.asked.prompts.writing_messages(self.concept, n, variation=variation, tag=tag, rng=same)
        return best.texts, "" if best.texts else f"set {variation}: {reason}", n
