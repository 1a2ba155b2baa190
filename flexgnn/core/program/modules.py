"""Which leaf modules work on each row alone, and why others don't."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch_geometric.nn.norm import LayerNorm as PyGLayerNorm

from flexgnn.core.program.norms import GLOBAL_NORMS
from flexgnn.core.program.refusals import describe, refuse

_ELEMENTWISE: tuple[type, ...] = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid,
    nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh,
    nn.Tanhshrink, nn.Threshold,
)  # fmt: skip

_FOLDED: tuple[type, ...] = (nn.Identity, nn.Dropout)
"""Gone from the graph before rows are checked."""

Problem = str | None
"""What a module does across rows; None: nothing."""


def _anything(module: Any, ndim: int) -> Problem:
    return None


def _needs_columns(module: Any, ndim: int) -> Problem:
    return None if ndim >= 2 else "takes the row dimension for the columns"


def _over_dim(module: Any, ndim: int) -> Problem:
    if module.dim is None:
        return "has no dim"
    return None if module.dim % ndim >= 1 else f"works over rows (dim={module.dim})"


def _over_trailing(module: Any, ndim: int) -> Problem:
    return None if len(module.normalized_shape) < ndim else f"normalises over rows ({module.normalized_shape})"


_RULES: dict[type, Callable[[Any, int], Problem]] = {
    **dict.fromkeys(_ELEMENTWISE, _anything),
    **dict.fromkeys((nn.Linear, nn.PReLU, PyGLayerNorm), _needs_columns),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.GLU), _over_dim),
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm), _over_trailing),
}

_NORMS = f"use torch.nn.LayerNorm, or one of {', '.join(GLOBAL_NORMS)}, not a subclass"


def _why_not(module: nn.Module) -> tuple[str, str]:
    """Reason and remedy for a module that is not on the list."""
    cls = type(module)
    if "norm" in cls.__module__:
        return "is a norm that FlexGNN can't lower", _NORMS
    if "dropout" in cls.__name__.lower() or isinstance(module, nn.RReLU):
        return "draws random numbers that FlexGNN can't draw again for a part of the rows", "use Dropout or LeakyReLU"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return "is recurrent, which FlexGNN can't lower", "use another layer; for jk: 'cat', 'max' or 'last'"
    if isinstance(module, nn.MultiheadAttention):
        return "attends across rows", "use GATConv or TransformerConv, which attend to neighbours"
    names = ", ".join(sorted({listed.__name__ for listed in (*_RULES, *_FOLDED)}))
    return "is not known to work on each row alone", f"use one of {names}"


def check_module_class(module: nn.Module, path: str) -> None:
    """Refuse a leaf module that can't be row-local whatever its input.

    Raises:
        LoweringError: with the module's path and class, the reason, and what to use instead.
    """
    if type(module) not in (*_RULES, *_FOLDED):
        raise refuse(describe(path, type(module)), *_why_not(module))


def module_problem(module: nn.Module, shape: Sequence[int]) -> Problem:
    """What a leaf module does across rows on an input of ``shape``, rows first; None: nothing."""
    return _RULES[type(module)](module, len(shape))


def out_of_place(module: nn.Module) -> nn.Module:
    """``module``, an activation without parameters, as one that leaves its input alone."""
    twin = type(module).__new__(type(module))
    twin.__dict__.update(module.__dict__)
    twin.__dict__["inplace"] = False
    return twin


def is_in_place(module: nn.Module) -> bool:
    """Whether a leaf module writes to its input."""
    return bool(getattr(module, "inplace", False))
