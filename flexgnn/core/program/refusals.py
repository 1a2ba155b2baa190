"""How a refusal names the part of the user's model that it is about."""

from __future__ import annotations

from torch.fx import Node

from flexgnn.core.errors import LoweringError

ROOT_NAME = "model"
"""Attribute of the traced root under which the user's model sits."""


def describe(path: str, cls: type) -> str:
    """``norms.0 (BatchNorm1d)`` for a module at ``path`` below the traced root."""
    inner = path.removeprefix(ROOT_NAME).removeprefix(".")
    return f"{inner} ({cls.__name__})" if inner else cls.__name__


def locate(node: Node) -> str:
    """The innermost module that ``node`` was traced in."""
    stack: dict[str, tuple[str, type]] = node.meta.get("nn_module_stack", {})
    return describe(*list(stack.values())[-1]) if stack else "the model"


def operation(node: Node) -> str:
    """What ``node`` does, for a message: the module it calls, or the function and where."""
    if node.op == "call_module":
        return locate(node)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    if node.target is getattr:
        name = str(node.args[1])
    return f"{name!r} in {locate(node)}"


def refuse(what: str, reason: str, instead: str) -> LoweringError:
    """The error for ``what`` (see :func:`describe` and :func:`operation`), to be raised by the caller."""
    return LoweringError(f"{what} {reason}; {instead}")
