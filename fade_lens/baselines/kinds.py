"""Which baseline features there are (see `fade_lens.baselines.features`), checked before anything heavy is imported."""

from collections.abc import Sequence

from fade_lens._util.errors import Argument, InputError

BASELINES = ("random", "permuted", "neurons", "residual")
DESCRIBED = ("permuted",)
"""Those to which the run's own descriptions belong; the features of others have to be explained."""


def check_baselines(kinds: Sequence[str], explainer: str | None) -> None:
    """Raise `InputError` for an unknown kind, or for one whose features nobody describes."""
    for kind in kinds:
        if kind not in BASELINES:
            raise InputError(Argument("baselines"), f" holds {kind!r}; give some of {', '.join(map(repr, BASELINES))}")
        if kind not in DESCRIBED and explainer is None:
            raise InputError(Argument("baselines"), f" holds {kind!r}, whose features have no description: give ", Argument("explainer", "one-shot"), ", or descriptions that an explainer of this library made, so that these are explained likewise")  # fmt: skip
