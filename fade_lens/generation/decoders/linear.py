"""Matrix products at the processor's full speed."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_operations = cast(Any, torch.ops.mkldnn) if torch.backends.mkldnn.is_available() else None
_onednn = getattr(_operations, "_linear_pointwise", None)
_reorder = getattr(_operations, "_reorder_linear_weight", None)
_bfloat16 = bool(getattr(_operations, "_is_mkldnn_bf16_supported", lambda: False)())
TYPICAL_ROWS = 128

_FUSED: dict[str | None, tuple[str, str]] = {
    None: ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
    "relu": ("relu", ""),
}
"""Activations that oneDNN applies to what it has just multiplied, in its words."""
_APART: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
}
Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]


def packed(weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_out d_in"]:
    """On a CPU a copy of the weight laid out as the processor multiplies fastest, for `linear` alone; elsewhere the weight.

    Else oneDNN lays it out anew at every product, which takes longer than the product where there are few rows
    (for 128 rows of float32 packed weights are 2.4 times as fast).
    """
    if weight.device.type != "cpu":
        return weight
    known = weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _bfloat16)
    weight = weight.contiguous()
    return _reorder(weight, TYPICAL_ROWS) if known and _onednn is not None and _reorder is not None else weight


def linear(
    x: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    bias: Float[Tensor, " d_out"] | None = None,
    activation: Activation | None = None,
) -> Float[Tensor, "*batch d_out"]:
    """x Wᵀ + b, then the activation, as `torch.nn.functional` computes them; not differentiable.

    PyTorch sends float32 products on a CPU to MKL, which on an AMD processor runs at half the speed of oneDNN (80
    against 170 GFLOP/s a core measured on Zen 5); half-precision products go to oneDNN by themselves.
    """
    if weight.is_mkldnn or (x.dtype == torch.float32 and x.device.type == "cpu" and _onednn is not None):
        if not (weight.is_mkldnn or weight.is_contiguous() or weight.mT.is_contiguous()):
            weight = weight.mT.contiguous().mT  # oneDNN has no fast kernel for rows with gaps between them
        name, form = _FUSED[activation]
        return cast(Any, _onednn)(x, weight, bias, name, [], form)
    return _APART[activation](F.linear(x, weight, bias))
