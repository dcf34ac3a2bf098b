"""What the judge was asked and what it cost: counters, prices, limits, and the estimate of a dry run."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from threading import Lock
from typing import Any, cast

from fade_lens._util.errors import Argument, InputError, JudgeError

Number = int | float
"""Spelled out, as run-time type checkers do not count an int as a float."""

PRICES_AS_OF = "2026-11"
"""The month of the newest price list behind `PRICES`."""

PRICES: dict[str, tuple[float, float]] = {
    "gpt-6-astra": (10.00, 50.00),
    "gpt-6.1-sol": (2.00, 10.00),
    "gpt-6.1-terra": (1.00, 5.00),
    "gpt-6-sol": (2.00, 10.00),
    "gpt-6-luna": (0.10, 0.50),
    "gpt-5.6": (4.00, 20.00),
    "gpt-5.6-sol": (4.00, 20.00),
    "gpt-5.6-terra": (2.00, 12.00),
    "gpt-5.6-luna": (0.20, 1.20),
    "gpt-5.5": (5.00, 30.00),
    "gpt-5.4": (2.50, 15.00),
    "gpt-5.4-mini": (0.75, 4.50),
    "gpt-5.4-nano": (0.20, 1.25),
    "gpt-5.2": (1.75, 14.00),
    "gpt-5.1": (1.25, 10.00),
    "gpt-5": (1.25, 10.00),
    "gpt-5-mini": (0.25, 2.00),
    "gpt-5-nano": (0.05, 0.40),
    "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60),
    "gpt-4.1-nano": (0.10, 0.40),
    "gpt-4o": (2.50, 10.00),
    "gpt-4o-mini": (0.15, 0.60),
    "gpt-4-turbo": (10.00, 30.00),
    "gpt-3.5-turbo": (0.50, 1.50),
    "o1": (15.00, 60.00),
    "o3": (2.00, 8.00),
    "o3-mini": (1.10, 4.40),
    "o4-mini": (1.10, 4.40),
}
"""OpenAI's list prices, US dollars a million tokens (prompt, completion), no discount for cached prompts counted: GPT-6 and 6.1 as listed
in September to November 2026, GPT-5 to 5.6 and GPT-4 Turbo on OpenAI's model pages of that autumn, the others on lists of March to June 2026.
Override one for a judge with `Judge(..., price=(prompt, completion))`; what is not here is unknown."""

BATCH_DISCOUNT = 0.5
"""What an answer from a Batch API costs, as a share of its list price."""

CHARS_PER_TOKEN = 4.0
"""For estimates, and where a server reports no token counts."""

EXPECTED_THOUGHTS = 500
"""What a reasoning model's thoughts are reckoned with, in tokens."""


def price_of(model: str) -> tuple[float, float] | None:
    """The list price of an OpenAI model (a dated snapshot has its family's), or None where it is not in the table."""
    return PRICES.get(re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model))


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
        return self._combine(other, 1)

    def __sub__(self, other: "Usage") -> "Usage":
        return self._combine(other, -1)

    def _combine(self, other: "Usage", sign: int) -> "Usage":
        return Usage(
            self.calls + sign * other.calls,
            self.cached + sign * other.cached,
            self.prompt_tokens + sign * other.prompt_tokens,
            self.completion_tokens + sign * other.completion_tokens,
            self.retries + sign * other.retries,
            self.failed + sign * other.failed,
            None if self.cost is None or other.cost is None else self.cost + sign * other.cost,
        )

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
        return Estimate(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            None if self.cost is None or other.cost is None else self.cost + other.cost,
        )

    def __mul__(self, times: int) -> "Estimate":
        cost = None if self.cost is None else times * self.cost
        return Estimate(times * self.calls, times * self.prompt_tokens, times * self.completion_tokens, cost)

    def __str__(self) -> str:
        price = dollars(self.cost) if not self.cost else f"about {dollars(self.cost)}"
        return (
            f"{self.calls:,} calls, about {self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion "
            f"tokens, {price}"
        )


class BudgetReached(JudgeError):
    """`max_calls` or `max_cost` is spent: the run stops, what was answered is kept, and a rerun goes on from there."""


class Ledger:
    """The counters of one model, in all and by concept; thread-safe."""

    def __init__(self, price: tuple[Number, Number] | None) -> None:
        self.price = None if price is None else checked_price(price)
        self._lock = Lock()
        self._total = Usage()
        self._by_concept: dict[str, dict[str, tuple[Usage, bool]]] = {}

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
        """Counts the answer under `key`, new or kept from before, as one that `concept` rests on; a second time changes nothing."""
        own = Usage(1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        with self._lock:
            self._by_concept.setdefault(concept, {})[key] = own, batched

    def begin(self) -> None:
        """Forgets what concepts rest on: a new run counts for itself."""
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
        """What all answers that `concept` rests on cost when they were paid for, in this run or before."""
        with self._lock:
            answers = list(self._by_concept.get(concept, {}).values())
        costs = [self.cost(share.prompt_tokens, share.completion_tokens, batched=batched) for share, batched in answers]
        shares = sum((share for share, _ in answers), Usage())
        return replace(shares, cost=None if self.price is None else sum(cost or 0.0 for cost in costs))


class Budget:
    """Limits on calls and cost over one or more ledgers; what is in flight counts as spent, so no limit is overshot."""

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
