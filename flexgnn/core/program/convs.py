"""How each convolution of PyG becomes row-local operations around one aggregation.

A rule is an ordinary function over ``torch.fx`` proxies, registered for the exact class of a convolution. What it calls
is recorded: modules and functions of torch become parts of segments, :func:`aggregate` becomes an aggregation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor
from torch.fx import Proxy
from torch.nn import functional
from torch_geometric.nn import GCNConv, GINConv, SAGEConv
from torch_geometric.nn.aggr import MaxAggregation, MeanAggregation, SumAggregation
from torch_geometric.nn.conv import MessagePassing

from flexgnn.core.program.program import Adjacency
from flexgnn.core.program.refusals import describe, refuse

Aggr = Literal["sum", "mean", "max"]
Rule = Callable[[Any, Aggr, Proxy, Proxy | None], Proxy]

EDGE_INDEX = "edge_index"
EDGE_WEIGHT = "edge_weight"
AGGREGATION = "aggregation"
"""Key under which a node's ``meta`` holds its (reduce, :class:`Adjacency`)."""

_AGGRS: dict[type, Aggr] = {SumAggregation: "sum", MeanAggregation: "mean", MaxAggregation: "max"}
_RULES: dict[type, tuple[Rule, frozenset[Aggr]]] = {}


def aggregated(x: Tensor) -> Tensor:
    """Stands for an aggregation in a traced graph. Run, it gives a tensor of the right shape and nothing more."""
    return x


def aggregate(x: Proxy, aggr: Aggr, adjacency: Adjacency | None = None) -> Proxy:
    """Record an aggregation of ``x``; over the unweighted graph as it is, where no ``adjacency`` is given."""
    if adjacency is None:
        adjacency = Adjacency(weighted=False, normalization="mean" if aggr == "mean" else "none", self_loop_weight=None)
    out: Proxy = x.tracer.create_proxy("call_function", aggregated, (x,), {})
    out.node.meta[AGGREGATION] = ("max" if aggr == "max" else "sum", adjacency)
    return out


def lowers(conv_class: type, *aggrs: Aggr) -> Callable[[Rule], Rule]:
    """Register the decorated rule for exactly ``conv_class``, with the reductions that it can express."""

    def register(rule: Rule) -> Rule:
        _RULES[conv_class] = (rule, frozenset(aggrs))
        return rule

    return register


@lowers(GCNConv, "sum")
def _gcn(conv: Any, aggr: Aggr, x: Proxy, edge_weight: Proxy | None) -> Proxy:
    """Kipf and Welling 2017, equation 2, as ``gcn_norm`` of PyG computes it."""
    # PyG fills loops into given weights; without weights, it makes all of them 1 afterwards, ``improved`` or not.
    fill = 2.0 if conv.improved and edge_weight is not None else 1.0
    adjacency = Adjacency(
        weighted=edge_weight is not None,
        normalization="gcn" if conv.normalize else "none",
        self_loop_weight=fill if conv.normalize and conv.add_self_loops else None,
    )
    out = aggregate(conv.lin(x), aggr, adjacency)
    return out if conv.bias is None else out + conv.bias


@lowers(SAGEConv, "sum", "mean", "max")
def _sage(conv: Any, aggr: Aggr, x: Proxy, edge_weight: Proxy | None) -> Proxy:
    """Hamilton et al. 2017, algorithm 1; with ``project``, equation 3."""
    out: Proxy = conv.lin_l(aggregate(conv.lin(x).relu() if conv.project else x, aggr))
    if conv.root_weight:
        out = out + conv.lin_r(x)
    normalize: Any = functional.normalize  # over a proxy, so it gives one
    return normalize(out, p=2.0, dim=-1) if conv.normalize else out


@lowers(GINConv, "sum", "mean", "max")
def _gin(conv: Any, aggr: Aggr, x: Proxy, edge_weight: Proxy | None) -> Proxy:
    """Xu et al. 2019, equation 4.1."""
    out: Proxy = conv.nn(aggregate(x, aggr) + (1 + conv.eps) * x)
    return out


def lower_conv(conv: MessagePassing, path: str, *args: Any, **kwargs: Any) -> Proxy:
    """What ``conv(*args, **kwargs)`` computes, recorded by its rule.

    Raises:
        LoweringError: no rule gives this convolution, with its settings and inputs, exactly.
    """
    what = describe(path, type(conv))
    if type(conv) not in _RULES:
        known = ", ".join(sorted(cls.__name__ for cls in _RULES))
        raise refuse(what, "is a convolution that FlexGNN can't lower", f"use one of {known}, not a subclass")
    rule, accepted = _RULES[type(conv)]
    _check_settings(conv, what)
    aggr = _AGGRS.get(type(conv.aggr_module))
    if aggr not in accepted:
        raise refuse(
            what, f"has aggr={type(conv.aggr_module).__name__}", f"use aggr={' or '.join(map(repr, sorted(accepted)))}"
        )
    x, edge_weight = _check_inputs(conv, what, args, kwargs)
    return rule(conv, aggr, x, edge_weight)


def _check_settings(conv: Any, what: str) -> None:
    if conv.flow != "source_to_target":
        raise refuse(what, f"has flow={conv.flow!r}", "use flow='source_to_target' and reverse the edges of the graph")
    if conv.node_dim not in (-2, 0):
        raise refuse(what, f"has node_dim={conv.node_dim}", "use node_dim=-2")
    if conv.decomposed_layers > 1:
        raise refuse(what, f"has decomposed_layers={conv.decomposed_layers}", "use decomposed_layers=1")
    if conv.explain:
        raise refuse(what, "is in explain mode", "set conv.explain = False")
    hooked = [name for name, value in vars(conv).items() if name.endswith("_hooks") and value]
    if hooked:
        raise refuse(what, f"has hooks ({hooked[0].strip('_')}), which can't be run row by row", "remove them")


def _check_inputs(conv: Any, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Proxy, Proxy | None]:
    try:
        given = inspect.signature(type(conv).forward).bind(conv, *args, **kwargs).arguments
    except TypeError as error:
        raise refuse(what, f"is called with wrong arguments ({error})", "call it as PyG documents it") from error
    x, edge_index, edge_weight = given["x"], given["edge_index"], given.get("edge_weight")
    if not isinstance(x, Proxy):
        raise refuse(what, "is called with a tuple of node features", "bipartite graphs aren't supported: pass x alone")
    if not _is_input(edge_index, EDGE_INDEX):
        raise refuse(
            what,
            "is called with an edge_index that isn't the model's own",
            "change the graph before training instead, for example with torch_geometric.transforms",
        )
    if edge_weight is not None and not _is_input(edge_weight, EDGE_WEIGHT):
        raise refuse(
            what,
            "is called with an edge_weight that isn't the model's own",
            "compute edge weights before training and store them with the graph",
        )
    if given.get("size") is not None:
        raise refuse(what, "is called with a size", "bipartite graphs aren't supported: leave size out")
    return x, edge_weight


def _is_input(value: Any, name: str) -> bool:
    return isinstance(value, Proxy) and value.node.op == "placeholder" and value.node.target == name
