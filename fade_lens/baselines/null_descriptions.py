"""Null descriptions: descriptions that should score nothing, scored like real ones, so that a score can be read as score minus null."""

from collections.abc import Sequence

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.seeds import rng
from fade_lens.data.descriptions import Description, Provenance

NULLS = ("shuffled", "random", "generic")
"""What each does with a description of feature f:

- `"shuffled"`: f gets another description of the run with its rules, each going to one other feature (nothing more to write, ratings anew);
- `"random"`: the description goes to a random feature that the run does not describe (nothing more to write, ratings anew);
- `"generic"`: f is described as `GENERIC` (one writing for the whole run; nothing is rated, since every text expresses it).
"""
GENERIC = "any text"
TRIES = 1000


def null_descriptions(
    descriptions: Sequence[Description], kinds: Sequence[str], n_features: int, seed: int
) -> dict[str, tuple[Description, ...]]:
    """For each kind the null of every description, in their order; `n_features` is how many there are in the SAE or hook.

    Raises:
        InputError: an unknown kind, or too few descriptions or features to make it of.
    """
    makers = {"shuffled": _shuffled, "random": _random, "generic": _generic}
    check_nulls(kinds)
    return {
        kind: tuple(
            Description(i, d.text, Provenance("null", kind), d.rules)
            for i, d in makers[kind](descriptions, n_features, seed)
        )
        for kind in dict.fromkeys(kinds)
    }


def check_nulls(kinds: Sequence[str]) -> None:
    """Raise `InputError` for an unknown kind."""
    for kind in kinds:
        if kind not in NULLS:
            raise InputError(Argument("nulls"), f" holds {kind!r}; give some of {', '.join(map(repr, NULLS))}")


def _shuffled(descriptions: Sequence[Description], _: int, seed: int) -> list[tuple[int, Description]]:
    """Every description dealt to another feature, none to one that has such a description."""
    random = rng(seed, "null shuffled")
    own: dict[int, set[str]] = {}
    for d in descriptions:
        own.setdefault(d.index, set()).add(d.text.casefold())
    dealt = [descriptions[i] for i in random.permutation(len(descriptions)).tolist()]

    def fits(place: int, other: Description) -> bool:
        return other.text.casefold() not in own[descriptions[place].index]

    for _try in range(TRIES):
        bad = [place for place, other in enumerate(dealt) if not fits(place, other)]
        if not bad:
            return [(d.index, other) for d, other in zip(descriptions, dealt, strict=True)]
        for place in bad:
            at = int(random.integers(len(dealt)))
            if fits(place, dealt[at]) and fits(at, dealt[place]):
                dealt[place], dealt[at] = dealt[at], dealt[place]
    raise InputError(
        Argument("nulls"),
        f" holds 'shuffled', but {len(descriptions)} descriptions cannot be dealt out so that none goes to a feature that has it; "
        "describe more features, or leave 'shuffled' out",
    )


def _random(descriptions: Sequence[Description], n_features: int, seed: int) -> list[tuple[int, Description]]:
    """Every description on a feature of its own that the run does not describe."""
    random = rng(seed, "null random")
    described = {d.index for d in descriptions}
    free = [i for i in range(n_features) if i not in described]
    if len(free) < len(descriptions):
        raise InputError(
            Argument("nulls"),
            f" holds 'random', but of {n_features} features only {len(free)} are not described, for {len(descriptions)} "
            "descriptions; leave 'random' out",
        )
    chosen = random.choice(len(free), len(descriptions), replace=False)
    return [(free[int(i)], d) for i, d in zip(chosen, descriptions, strict=True)]


def _generic(descriptions: Sequence[Description], _: int, seed: int) -> list[tuple[int, Description]]:  # noqa: ARG001
    return [(d.index, Description(d.index, GENERIC)) for d in descriptions]
