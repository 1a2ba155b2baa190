"""Which functions and tensor methods work on each row alone, given their arguments.

Every operation has a rule: from a node of a ``torch.fx`` graph and what is known of its operands to what it does across
rows, or None where it does nothing of the kind.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node
from torch.nn import functional

from flexgnn.core.program import row_functions


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A node that an operation reads."""

    shape: tuple[int, ...] | None
    """None: a tuple of tensors."""
    has_rows: bool
    """False: it depends on parameters alone."""


Operands = Mapping[Node, Operand]
Rule = Callable[[Node, Operands], str | None]

_MIXES = "works over rows"
_NO_ROWS = "is applied to a tensor without rows"


def _argument(node: Node, position: int, keyword: str, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(keyword, default)


def _subject(node: Node, operands: Operands) -> Operand | None:
    """The first operand, where it is one tensor with rows."""
    subject = _argument(node, 0, "input")
    operand = operands.get(subject) if isinstance(subject, Node) else None
    return operand if operand is not None and operand.has_rows and operand.shape is not None else None


def _without_rows(value: Any, operands: Operands) -> bool:
    return not isinstance(value, Node) or not operands[value].has_rows


def _crosses(dims: Any, ndim: int) -> bool:
    """Whether ``dims`` of a tensor with ``ndim`` dimensions include rows, or aren't plain numbers."""
    listed = dims if isinstance(dims, list | tuple) else (dims,)
    plain = all(isinstance(dim, int) and not isinstance(dim, bool) for dim in listed)
    return not listed or not plain or any(dim % ndim == 0 for dim in listed)


def _elementwise(node: Node, operands: Operands) -> str | None:
    shapes = [(operand.shape, operand.has_rows) for operand in operands.values()]
    if any(shape is None for shape, _ in shapes):
        return "is applied to a tuple"
    ndim = max(len(shape or ()) for shape, _ in shapes)
    for shape, has_rows in shapes:
        size = shape or ()
        if has_rows and len(size) != ndim:
            return f"broadcasts a tensor with rows along another dimension ({size} with {ndim} dimensions)"
        if not has_rows and len(size) == ndim and size[0] != 1:
            return f"uses a parameter or buffer with a value for each row (shape {size})"
    return None


def _over_dim(position: int, default: Any = None, new_dim: int = 0) -> Rule:
    """A rule for operations along a dim given as argument ``position``; ``new_dim``: 1 where the dim is a new one."""

    def rule(node: Node, operands: Operands) -> str | None:
        dim = _argument(node, position, "dim", default)
        if isinstance(dim, Node):  # torch.max(x, y)
            return _elementwise(node, operands)
        shapes = [operand.shape for operand in operands.values() if operand.has_rows]
        if len(shapes) < len(operands) or any(shape is None or len(shape) != len(shapes[0] or ()) for shape in shapes):
            return _NO_ROWS
        return f"{_MIXES} (dim={dim})" if _crosses(dim, len(shapes[0] or ()) + new_dim) else None

    return rule


def _linear(node: Node, operands: Operands) -> str | None:
    subject = _subject(node, operands)
    others = (_argument(node, 1, "weight"), _argument(node, 2, "bias"))
    if subject is None or len(subject.shape or ()) < 2:
        return _NO_ROWS
    return None if all(_without_rows(other, operands) for other in others) else "multiplies rows with rows"


def _matmul(node: Node, operands: Operands) -> str | None:
    subject = _subject(node, operands)
    other = _argument(node, 1, "other", node.kwargs.get("mat2"))
    if subject is None or len(subject.shape or ()) < 2:
        return _NO_ROWS
    is_matrix = isinstance(other, Node) and len(operands[other].shape or ()) in (1, 2)
    return None if is_matrix and _without_rows(other, operands) else "multiplies rows with rows"


def _layer_norm(node: Node, operands: Operands) -> str | None:
    subject = _subject(node, operands)
    normalized = _argument(node, 1, "normalized_shape")
    others = (_argument(node, 2, "weight"), _argument(node, 3, "bias"))
    if subject is None or not all(_without_rows(other, operands) for other in others):
        return _NO_ROWS
    return None if len(normalized) < len(subject.shape or ()) else f"{_MIXES} (normalized_shape={tuple(normalized)})"


def _prelu(node: Node, operands: Operands) -> str | None:
    subject = _subject(node, operands)
    if subject is None or len(subject.shape or ()) < 2 or not _without_rows(_argument(node, 1, "weight"), operands):
        return _NO_ROWS
    return None


def _getitem(node: Node, operands: Operands) -> str | None:
    index = node.args[1]
    source = operands[node.all_input_nodes[0]]
    if len(operands) > 1:
        return "is indexed by a tensor"
    if source.shape is None:
        return None
    listed = index if isinstance(index, tuple | list) else (index,)
    return None if listed and listed[0] == slice(None) else "picks rows"


def _view(node: Node, operands: Operands) -> str | None:
    sizes = node.args[1:] or (node.kwargs.get("shape"),)
    listed = sizes[0] if isinstance(sizes[0], list | tuple) else sizes
    plain = all(isinstance(size, int) for size in listed)
    return None if plain and listed[0] == -1 else "gives the number of rows: give -1, and the other sizes as numbers"


def _flatten(node: Node, operands: Operands) -> str | None:
    subject = _subject(node, operands)
    start = _argument(node, 1, "start_dim", 0)
    return _MIXES if subject is None or _crosses(start, len(subject.shape or ())) else None


def _transpose(node: Node, operands: Operands) -> str | None:
    subject = _subject(node, operands)
    dims = (_argument(node, 1, "dim0"), _argument(node, 2, "dim1"))
    return _MIXES if subject is None or _crosses(dims, len(subject.shape or ())) else None


def _beside_rows(node: Node, operands: Operands) -> str | None:
    subject = _subject(node, operands)
    if subject is None or len(subject.shape or ()) != 2 or not _without_rows(node.args[1], operands):
        return _NO_ROWS
    return None


def _never(node: Node, operands: Operands) -> str | None:
    return "transposes rows"


_ELEMENTWISE = (
    "abs", "add", "celu", "clamp", "clip", "clone", "contiguous", "cos", "div", "elu", "eq", "erf", "exp",
    "expm1", "ge", "gelu", "gt", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "le", "leaky_relu", "log",
    "log1p", "log2", "logsigmoid", "lt", "maximum", "minimum", "mish", "mul", "multiply", "ne", "neg", "pow",
    "reciprocal", "relu", "relu6", "rsqrt", "rsub", "selu", "sigmoid", "sign", "silu", "sin", "softplus",
    "softshrink", "softsign", "sqrt", "square", "sub", "subtract", "tanh", "tanhshrink", "threshold",
    "true_divide", "truediv", "where",
)  # fmt: skip

OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(
        ("amax", "amin", "cumsum", "logsumexp", "max", "mean", "min", "prod", "std", "sum", "var"), _over_dim(1)
    ),
    **dict.fromkeys(("log_softmax", "softmax", "softmin"), _over_dim(1)),
    **dict.fromkeys(("glu",), _over_dim(1, default=-1)),
    **dict.fromkeys(("cat", "concat"), _over_dim(1, default=0)),
    **dict.fromkeys(("chunk", "split"), _over_dim(2, default=0)),
    **dict.fromkeys(("matmul", "mm"), _matmul),
    **dict.fromkeys(("reshape", "view"), _view),
    "beside_rows": _beside_rows,
    "flatten": _flatten,
    "getitem": _getitem,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "norm": _over_dim(2),
    "normalize": _over_dim(2, default=1),
    "prelu": _prelu,
    "squeeze": _over_dim(1),
    "stack": _over_dim(1, default=0, new_dim=1),
    "t": _never,
    "transpose": _transpose,
    "unsqueeze": _over_dim(1, new_dim=1),
}

_FUNCTIONS: dict[Any, str] = {
    getattr(namespace, name): name
    for namespace in (torch, functional, operator, row_functions)
    for name in OPERATIONS
    if callable(getattr(namespace, name, None))
}


def operation_name(node: Node) -> str | None:
    """The key into :data:`OPERATIONS` of a function or method call; None: it isn't there."""
    if node.op == "call_method":
        return str(node.target) if node.target in OPERATIONS else None
    return _FUNCTIONS.get(node.target)
