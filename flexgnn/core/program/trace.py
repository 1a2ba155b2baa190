"""From a PyG model to one ``torch.fx`` graph of row-local operations and aggregations."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.fx import Graph, Node, Proxy, Tracer
from torch_geometric.nn import Sequential
from torch_geometric.nn.conv import MessagePassing

from flexgnn.core.errors import LoweringError
from flexgnn.core.program.convolution import Convolution
from flexgnn.core.program.convs import convolve, lower_conv
from flexgnn.core.program.edge_inputs import EdgeInput, EdgeInputs
from flexgnn.core.program.heterogeneous import check_homogeneous
from flexgnn.core.program.modules import check_module_class
from flexgnn.core.program.norms import is_global_norm, lower_norm
from flexgnn.core.program.refusals import ROOT_NAME, describe, refuse

IN_PLACE_OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.ipow: operator.pow,
    operator.imatmul: operator.matmul,
    operator.iand: operator.and_,
    operator.ior: operator.or_,
    operator.ixor: operator.xor,
}
"""Augmented assignments, and what they compute."""


class Root(torch.nn.Module):
    """Calls the model as the user would.

    ``torch.fx`` traces the forward of a root's class, but PyG's ``Sequential`` keeps each instance's forward on the
    instance and overwrites that of the class; called from here, it is the instance's own.
    """

    def __init__(
        self, model: torch.nn.Module, taken: Sequence[EdgeInput], edges: EdgeInputs, links: Convolution | None
    ) -> None:
        """``taken``: what the model's forward gets of ``edges``; ``links``: what is made of its output."""
        super().__init__()
        self.model = model
        self.edges = edges
        self._taken, self._links = taken, links

    def forward(self, x: Any, edge_index: Any, edge_weight: Any, edge_attr: Any, edge_type: Any) -> Any:
        values = dict(zip(EdgeInput, (edge_weight, edge_attr, edge_type), strict=True))
        out = self.model(x, edge_index, **{given.value: values[given] for given in self._taken})
        return out if self._links is None else convolve(_one_tensor(out, type(self.model)), self._links)


def _one_tensor(out: Any, model_class: type) -> Proxy:
    if not isinstance(out, Proxy):
        raise refuse(model_class.__name__, f"returns a {type(out).__name__}", "return one row of embeddings a node")
    return out


class _Proxy(Proxy):
    """A proxy that records ``x += y`` as the in-place operation that it is on tensors."""


def _record_in_place(function: Callable[..., Any]) -> Callable[[Proxy, Any], Proxy]:
    def method(self: Proxy, other: Any) -> Proxy:
        out: Proxy = self.tracer.create_proxy("call_function", function, (self, other), {})
        return out

    return method


for _function in IN_PLACE_OPERATORS:
    setattr(_Proxy, f"__{_function.__name__}__", _record_in_place(_function))


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A call of a module."""

    returned: Any
    last: Node
    """The last node of the graph when it returned."""


class _Tracer(Tracer):
    proxy_buffer_attributes = True  # or ``1 + buffer`` would be computed now and stay as it is

    def __init__(self, edges: EdgeInputs) -> None:
        super().__init__()
        self._edges = edges
        self.calls: dict[str, list[_Call]] = {}
        """By path below the model."""

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, MessagePassing) or is_global_norm(m):
            return False
        is_norm = type(m).__module__.startswith("torch_geometric.nn.norm")
        return is_norm or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: torch.nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        if isinstance(m, MessagePassing):
            forward = partial(lower_conv, m, path, self._edges)
        elif is_global_norm(m):
            forward = partial(lower_norm, m, path, getattr(self.root, ROOT_NAME).training)
        elif self.is_leaf_module(m, path):
            check_module_class(m, path)  # now: some, like an LSTM, can't be traced over at all
        returned = super().call_module(m, forward, args, kwargs)
        call = _Call(returned=returned, last=next(iter(reversed(self.graph.nodes))))
        self.calls.setdefault(path.removeprefix(f"{ROOT_NAME}."), []).append(call)
        return returned

    def proxy(self, node: Node) -> Proxy:
        return _Proxy(node, self)


def make_root(model: torch.nn.Module, edges: EdgeInputs, links: Convolution | None = None) -> Root:
    """A module whose forward calls ``model`` with those of its arguments that ``edges`` has, and then ``links``.

    Raises:
        LoweringError: ``model`` works on types of nodes, has hooks, or has parameters that are not there yet or not
            float32.
    """
    check_homogeneous(model)
    _check_model(model)
    return Root(model, _taken(model, edges), edges, links)


def _taken(model: torch.nn.Module, edges: EdgeInputs) -> list[EdgeInput]:
    """Those of ``edges`` that the forward of ``model`` takes; what else it takes keeps its default."""
    if isinstance(model, Sequential):
        required = dict.fromkeys(model.signature.param_dict, True)
    else:
        parameters = inspect.signature(model.forward).parameters
        required = {name: parameter.default is parameter.empty for name, parameter in parameters.items()}
    missing = [given.value for given in EdgeInput if required.get(given.value) and given not in edges]
    if missing:
        problem = f"takes {' and '.join(missing)}, which the graph does not have"
        raise refuse(type(model).__name__, problem, "import a graph with them, or give the argument a default")
    return [given for given in EdgeInput if given.value in required and given in edges]


def trace(root: Root, *, training: bool, output: str | None = None) -> Graph:
    """The graph of what ``root`` computes in training or in evaluation. The model's modes are left as they were.

    Args:
        output: the path of a module that :func:`calls_of_modules` has once: the graph ends with what that returns.

    Raises:
        LoweringError: a part of the model can't be lowered, or its forward can't be traced.
    """
    graph, calls = _trace(root, training=training)
    if output is not None:
        (call,) = calls[output]
        # What comes later goes: it may work in place on what the module returned.
        for node in reversed(graph.nodes):
            if node is call.last:
                break
            graph.erase_node(node)
        graph.output(torch.fx.node.map_aggregate(call.returned, lambda value: getattr(value, "node", value)))
    return graph


def calls_of_modules(root: Root) -> dict[str, int]:
    """How often the forward of ``root``'s model calls each of its modules, by path.

    Raises:
        LoweringError: as :func:`trace`.
    """
    _, calls = _trace(root, training=False)
    return {path: len(made) for path, made in calls.items() if path != ROOT_NAME}


def _trace(root: Root, *, training: bool) -> tuple[Graph, dict[str, list[_Call]]]:
    model: torch.nn.Module = getattr(root, ROOT_NAME)
    tracer = _Tracer(root.edges)
    try:
        with _mode(model, training), torch.random.fork_rng(devices=[]):
            graph = tracer.trace(root)
    except LoweringError:
        raise
    except Exception as error:
        stack = list(tracer.module_stack.values())
        what = describe(*stack[-1]) if stack else type(model).__name__
        raise refuse(
            what,
            f"can't be traced ({type(error).__name__}: {str(error).partition('. ')[0]})",
            "its forward must take x, edge_index and what edges have, and not branch on, loop over or convert tensors",
        ) from error
    _check_constants(graph, type(model))
    return graph, tracer.calls


@contextmanager
def _mode(model: torch.nn.Module, training: bool) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _check_model(model: torch.nn.Module) -> None:
    name = type(model).__name__
    for path, parameter in model.named_parameters():
        if torch.nn.parameter.is_lazy(parameter):
            raise refuse(f"{path} of {name}", "is not initialised yet", "give in_channels instead of -1")
        if parameter.dtype != torch.float32:
            raise refuse(f"{path} of {name}", f"is {parameter.dtype}", "FlexGNN trains in float32: call model.float()")
    for path, module in model.named_modules():
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            if getattr(module, hooks):
                raise refuse(
                    describe(path, type(module)),
                    f"has {hooks.strip('_')}, which can't be run row by row",
                    "remove them",
                )


def _check_constants(graph: Graph, model_class: type) -> None:
    """Refuse tensors made in forward: tracing would freeze what may be random, or differ from call to call."""
    for node in graph.nodes:
        if node.op == "get_attr" and not str(node.target).startswith(f"{ROOT_NAME}."):
            users = ", ".join(str(getattr(user.target, "__name__", user.target)) for user in node.users)
            raise refuse(
                f"the forward of {model_class.__name__}",
                f"makes a tensor that doesn't depend on x (used by {users})",
                "register it as a buffer or parameter of the model",
            )
