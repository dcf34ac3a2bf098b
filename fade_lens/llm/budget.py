"""What the judge was asked and what it cost: counters, prices, limits, and the estimate of a dry run."""

import math
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from numbers import Real
from threading import Lock
from typing import Any, cast

from fade_lens._util.errors import Argument, InputError, JudgeError

Number = int | float
"""Spelled out, as run-time type checkers do not count an int as a float."""

BATCH_DISCOUNT = 0.5
"""What an answer from a Batch API costs, as a share of its list price."""

CHARS_PER_TOKEN = 4.0
"""For estimates, and where a server reports no token counts."""

EXPECTED_THOUGHTS = 500
"""What a reasoning model's thoughts are reckoned with, in tokens."""


def price_of(model: str, address: str) -> tuple[float, float] | None:
    """The list price of a hosted model as the package `genai-prices` has it, without a network.

    Discounts for cached prompts and surcharges for very long ones are not counted; override a price with `Judge(..., price=...)`.

    Args:
        model: its name at the server; a dated snapshot that is not listed has its family's price.
        address: of the server.

    Returns:
        US dollars a million tokens (prompt, completion); None for a model or a server that is not listed.
    """
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    for name in (model, re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model)):
        try:
            price = calc_price(Tokens(input_tokens=1000, output_tokens=1000), name, provider_api_url=address)
        except LookupError:
            continue
        return float(price.input_price * 1000), float(price.output_price * 1000)
    return None


def checked_price(price: object) -> tuple[float, float]:
    """A price as (prompt, completion). Raises `InputError` for anything but two amounts of at least 0."""
    amounts = list(cast("Sequence[Any]", price)) if isinstance(price, tuple | list) else []
    numbers = all(isinstance(amount, Real) and not isinstance(amount, bool) for amount in amounts)
    if len(amounts) != 2 or not numbers or not all(0 <= amount < math.inf for amount in amounts):
        raise InputError(
            Argument("price"),
            f" is {price!r}: give (prompt, completion), two numbers of US dollars a million tokens from 0 up",
        )
    return float(amounts[0]), float(amounts[1])


def dollars(cost: float | None) -> str:
    """A price in words.

    >>> dollars(1.234), dollars(0.00123), dollars(0.0), dollars(None)
    ('$1.23', '$0.0012', 'no charge', 'price unknown')
    """
    if cost is None:
        return "price unknown"
    return "no charge" if cost == 0 else f"${cost:.2f}" if cost >= 0.1 else f"${cost:.4f}"


@dataclass(frozen=True)
class Usage:
    """What was asked and what it cost so far."""

    calls: int = 0
    """Requests that the server answered."""
    cached: int = 0
    """Answers taken from transcripts."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    """Further attempts after a transient failure."""
    failed: int = 0
    """Requests given up."""
    cost: float | None = 0.0
    """US dollars; None where the price is unknown."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*map(_sum, astuple(self), astuple(other)))

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(_sum(a, b, -1) for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def price(self) -> str:
        """The cost in words; "price unknown" is not the same as nothing."""
        return dollars(self.cost)

    def __str__(self) -> str:
        kept = f" and {self.cached:,} answers that were there already" if self.cached else ""
        tokens = f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
        return f"{self.calls:,} calls{kept}, {tokens}, {self.price}"


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to ask and cost, before anything is sent."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    """US dollars; None where the price is unknown."""

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(*map(_sum, astuple(self), astuple(other)))

    def __mul__(self, times: int) -> "Estimate":
        cost = None if self.cost is None else times * self.cost
        return Estimate(times * self.calls, times * self.prompt_tokens, times * self.completion_tokens, cost)

    def __str__(self) -> str:
        price = dollars(self.cost) if not self.cost else f"about {dollars(self.cost)}"
        tokens = f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
        return f"{self.calls:,} calls, about {tokens}, {price}"


def _sum(a: Any, b: Any, sign: int = 1) -> Any:
    """Two amounts together; None where one is unknown."""
    return None if a is None or b is None else a + sign * b


class BudgetReached(JudgeError):
    """`max_calls` or `max_cost` is spent. Everything answered is kept, and the same run with a higher limit goes on from there."""


class Ledger:
    """The counters of one model, in all and by concept; thread-safe.

    Args:
        price: US dollars a million tokens (prompt, completion); None where it is unknown.

    Raises:
        InputError: a price that is none.
    """

    def __init__(self, price: tuple[Number, Number] | None) -> None:
        self.price = None if price is None else checked_price(price)
        self._lock = Lock()
        self._total = Usage()
        self._by_concept: dict[str, tuple[set[int], list[Usage]]] = {}
        """The answers that are counted, by a number each, for a run has hundred thousands; and what they sum to, those of a Batch API last."""

    def add(self, **counts: int) -> None:
        """Adds to the counters named."""
        with self._lock:
            self._total += Usage(**counts)

    def spend(self, prompt_tokens: int, completion_tokens: int, *, batched: bool = False) -> None:
        """Counts one answered call and its price."""
        cost = self.cost(prompt_tokens, completion_tokens, batched=batched) or 0.0
        with self._lock:
            self._total += Usage(1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, cost=cost)

    def use(self, concept: str, key: str, prompt_tokens: int, completion_tokens: int, *, batched: bool = False) -> None:
        """Counts an answer, new or stored, for `concept`; the same answer (by its `key`) counts once."""
        with self._lock:
            counted, sums = self._by_concept.setdefault(concept, (set(), [Usage(), Usage()]))
            if (answer := hash(key)) not in counted:
                counted.add(answer)
                sums[batched] += Usage(1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    def begin(self) -> None:
        """Forgets the counts by concept: a new run counts for itself."""
        with self._lock:
            self._by_concept.clear()

    def cost(self, prompt_tokens: Number, completion_tokens: Number, *, batched: bool = False) -> float | None:
        """Price of so many tokens, or None."""
        if self.price is None:
            return None
        share = BATCH_DISCOUNT if batched else 1.0
        return share * (prompt_tokens * self.price[0] + completion_tokens * self.price[1]) / 1e6

    @property
    def usage(self) -> Usage:
        """A snapshot of the counters."""
        with self._lock:
            return self._total if self.price is not None else replace(self._total, cost=None)

    def usage_of(self, concept: str) -> Usage:
        """What all answers about `concept` cost when they were paid for, in this run or an earlier one."""
        with self._lock:
            sums = list(self._by_concept.get(concept, (set(), [Usage(), Usage()]))[1])
        costs = [self.cost(one.prompt_tokens, one.completion_tokens, batched=at == 1) for at, one in enumerate(sums)]
        return replace(sum(sums, Usage()), cost=None if self.price is None else sum(cost or 0.0 for cost in costs))


class Budget:
    """Limits on calls and cost over one or more ledgers. What is in flight counts as spent, so no limit is overshot.

    Args:
        max_calls: answered requests; None is no limit.
        max_cost: US dollars; None is no limit.
        ledgers: those whose counts are added up.

    Raises:
        InputError: a limit below 0.
    """

    def __init__(self, max_calls: int | None, max_cost: Number | None, ledgers: list[Ledger]) -> None:
        for name, limit in {"max_calls": max_calls, "max_cost": max_cost}.items():
            if limit is not None and limit < 0:
                raise InputError(Argument(name), f" is {limit}: give 0 or more, or None for no limit")
        self.max_calls, self.max_cost, self.ledgers = max_calls, max_cost, ledgers
        self._lock = Lock()
        self._calls, self._cost = 0, 0.0

    def reserve(self, cost: float | None) -> None:
        """Counts one call of about `cost` as in flight. Raises `BudgetReached` where a limit leaves no room for it."""
        with self._lock:
            usages = [ledger.usage for ledger in self.ledgers]
            calls, paid = sum(usage.calls for usage in usages), sum(usage.cost or 0.0 for usage in usages)
            if self.max_calls is not None and calls + self._calls >= self.max_calls:
                raise BudgetReached(
                    Argument("max_calls", self.max_calls),
                    " is reached: every answer is kept; raise ",
                    Argument("max_calls"),
                    " and run again to go on",
                )
            spent = paid + self._cost
            if self.max_cost is not None and spent + (cost or 0.0) > self.max_cost:
                raise BudgetReached(
                    Argument("max_cost", self.max_cost),
                    f" US dollars leaves no room for another call ({spent:.4f} is spent or in flight): every answer is kept; raise ",
                    Argument("max_cost"),
                    " and run again to go on",
                )
            self._calls += 1
            self._cost += cost or 0.0

    def release(self, cost: float | None) -> None:
        """Takes back a reservation, once the call is counted in its ledger or has failed."""
        with self._lock:
            self._calls -= 1
            self._cost -= cost or 0.0
