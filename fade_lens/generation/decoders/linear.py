"""Matrix products at the processor's full speed."""

import logging
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

logger = logging.getLogger(__name__)

Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
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


class OneDnn(NamedTuple):
    """The operators through which PyTorch's own compiler reaches oneDNN; it has no public ones.

    Attributes:
        product: x Wᵀ + b, then an activation.
        packed: a weight laid out for `product`, and for so many rows.
        dtypes: what weights can be packed of.
    """

    product: Callable[..., Tensor]
    packed: Callable[[Tensor, int], Tensor]
    dtypes: tuple[torch.dtype, ...]


@cache
def onednn() -> OneDnn | None:
    """oneDNN's operators, tried once on a small product; None where they are missing, fail or compute something else."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        operators: Any = torch.ops.mkldnn
        half = (torch.bfloat16,) if operators._is_mkldnn_bf16_supported() else ()
        found = OneDnn(operators._linear_pointwise, operators._reorder_linear_weight, (torch.float32, *half))
        for dtype in found.dtypes:
            x, weight, bias = (torch.linspace(-1, 1, n, dtype=dtype) for n in (2 * 8, 4 * 8, 4))
            x, weight = x.view(2, 8), weight.view(4, 8)
            forms, close = (weight, found.packed(weight, TYPICAL_ROWS)), 16 * torch.finfo(dtype).eps
            for (activation, plain), form in product(_APART.items(), forms):
                given, expected = found.product(x, form, bias, *_words(activation)), plain(F.linear(x, weight, bias))
                if not torch.allclose(given, expected, close, close):
                    raise ArithmeticError(f"a product is {given.tolist()} and should be {expected.tolist()}")
    except Exception as error:  # private operators may fail in any way, and all that is lost is speed
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        logger.warning("oneDNN's operators cannot be used (%s); PyTorch's public ones take up to twice as long", reason)
        return None
    return found


def _words(activation: Activation | str | None) -> tuple[str, list[Any], str]:
    name, form = _FUSED[activation]
    return name, [], form


def packed(weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_out d_in"]:
    """On a CPU a copy of the weight laid out as the processor multiplies fastest, for `linear` alone; elsewhere the weight.

    Else oneDNN lays it out anew at every product, which takes longer than the product where there are few rows
    (for 128 rows of float32 packed weights are 2.4 times as fast).
    """
    if weight.device.type != "cpu":
        return weight
    weight, operators = weight.contiguous(), onednn()
    if operators is None or weight.dtype not in operators.dtypes:
        return weight
    return operators.packed(weight, TYPICAL_ROWS)


def linear(
    x: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    bias: Float[Tensor, " d_out"] | None = None,
    activation: Activation | None = None,
) -> Float[Tensor, "*batch d_out"]:
    """x Wᵀ + b, then the activation, as `torch.nn.functional` computes them; not differentiable.

    PyTorch sends float32 products on a CPU to MKL, which on an AMD processor runs at half the speed of oneDNN (80
    against 170 GFLOP/s a core measured on Zen 5); half-precision products go to oneDNN by themselves.

    Args:
        weight: plain, or from `packed`.
        activation: "gelu" exact or "gelu_tanh" approximate, "silu", "relu"; None for none.
    """
    operators = onednn() if weight.is_mkldnn or (x.dtype == torch.float32 and x.device.type == "cpu") else None
    if operators is None:
        return _APART[activation](F.linear(x, weight, bias))
    if not (weight.is_mkldnn or weight.is_contiguous() or weight.mT.is_contiguous()):
        weight = weight.mT.contiguous().mT  # oneDNN has no fast kernel for rows with gaps between them
    return operators.product(x, weight, bias, *_words(activation))
