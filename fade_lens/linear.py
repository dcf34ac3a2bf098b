"""Matrix products at the processor's full speed."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_operations = cast(Any, torch.ops.mkldnn) if torch.backends.mkldnn.is_available() else None
_onednn = getattr(_operations, "_linear_pointwise", None)
_reorder = getattr(_operations, "_reorder_linear_weight", None)
TYPICAL_ROWS = 128


def packed(weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_out d_in"]:
    """A copy of the weight laid out as the processor multiplies fastest, for `linear` alone.

    Else oneDNN lays it out anew at every product, which costs up to a third of the time of small batches. Where that
    is not to be had the copy is contiguous.
    """
    known = weight.dtype in (torch.float32, torch.bfloat16) and weight.device.type == "cpu"
    weight = weight.contiguous()
    return _reorder(weight, TYPICAL_ROWS) if known and _onednn is not None and _reorder is not None else weight


def linear(
    x: Float[Tensor, "*batch d_in"], weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | None = None
) -> Float[Tensor, "*batch d_out"]:
    """x Wᵀ + b, as `torch.nn.functional.linear`; not differentiable.

    PyTorch sends float32 products on a CPU to MKL, which on an AMD processor runs at half the speed of oneDNN (80
    against 170 GFLOP/s a core measured on Zen 5); half-precision products go to oneDNN by themselves.
    """
    if weight.is_mkldnn:
        return cast(Any, _onednn)(x, weight, bias, "none", [], "")
    if x.dtype == torch.float32 and x.device.type == "cpu" and _onednn is not None:
        if not (weight.is_contiguous() or weight.mT.is_contiguous()):
            weight = weight.mT.contiguous().mT  # oneDNN has no fast kernel for rows with gaps between them
        return _onednn(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)
