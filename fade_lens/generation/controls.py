"""Controls for steering: does another push of equal strength make the model write the concept just as well?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.seeds import rng

if TYPE_CHECKING:
    from fade_lens.subject.features import Features

CONTROLS = ("ablate", "random_direction", "other")
"""The feature set to 0; a random direction as long as the feature's; another feature's direction, made as long."""
CANDIDATES = 16
"""Features drawn at random, of which the control is the one whose direction is most nearly as long."""


def check_controls(features: "Features", controls: Sequence[str]) -> None:
    """Raise `InputError` for a control that these features cannot have; before anything is generated."""
    if "other" in controls and features.n_features < 2:
        raise InputError(Argument("controls"), " holds 'other', but there is only one feature; leave it out")
    if "ablate" in controls and getattr(features, "sequential", False):
        raise InputError(
            Argument("controls"),
            " holds 'ablate', which needs activations that depend on no earlier position; leave it out",
        )


def control_directions(control: str, features: "Features", seed: int) -> Any:
    """For each feature a control direction as long as its own.

    It comes from the seed and the feature's index, so it is the same whatever features are beside it.

    Args:
        control: one of `CONTROLS`, or "" for the feature itself.

    Returns:
        A tensor `[feature, d_out]`; None where the control is no direction.
    """
    import torch

    own = features.directions()
    if control == "random_direction":
        drawn = [rng(seed, "random direction", index).standard_normal(own.shape[1]) for index in features.indices]
        other = torch.stack([torch.from_numpy(d) for d in drawn]).to(own)
    elif control == "other":
        other = torch.cat([features.select([other_feature(features, i, seed)]).directions() for i in features.indices])
    else:
        return None
    return other * (own.norm(dim=-1, keepdim=True) / other.norm(dim=-1, keepdim=True).clamp(min=1e-12))


def other_feature(features: "Features", index: int, seed: int) -> int:
    """Another feature of the same source: of `CANDIDATES` drawn, the one whose direction is most nearly as long."""
    n = features.n_features
    drawn = rng(seed, "other direction", index).choice(n, min(CANDIDATES + 1, n), replace=False).tolist()
    candidates = [i for i in drawn if i != index][:CANDIDATES]
    norms = features.select([index, *candidates]).directions().norm(dim=-1)
    return candidates[int((norms[1:] - norms[0]).abs().argmin())]
