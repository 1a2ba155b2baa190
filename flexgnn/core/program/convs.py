"""How convolutions become row-local operations around one aggregation, or an aggregation that is run as it is.

A rule is an ordinary function over ``torch.fx`` proxies, registered for the exact class of a convolution. What it calls
is recorded: modules and functions of torch become parts of segments, :func:`aggregate` becomes an aggregation. What has
no rule is left in one piece (:mod:`flexgnn.core.program.convolution`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import Node, Proxy
from torch.nn import functional
from torch_geometric.nn import GATConv, GATv2Conv, GCNConv, GINConv, GraphConv, SAGEConv, TransformerConv
from torch_geometric.nn.aggr import MaxAggregation, MeanAggregation, SumAggregation
from torch_geometric.nn.conv import MessagePassing

from flexgnn.core.program.attention import Attention, Score
from flexgnn.core.program.convolution import Argument, Convolution
from flexgnn.core.program.edge_inputs import EdgeInput, EdgeInputs
from flexgnn.core.program.program import Adjacency, Reduction
from flexgnn.core.program.refusals import describe, refuse
from flexgnn.core.program.row_functions import beside_rows

Aggr = Literal["sum", "mean", "max"]
Rule = Callable[[Any, Aggr, Proxy, Proxy | None], Proxy]

EDGE_INDEX = Argument.EDGES.value
EDGE_WEIGHT = EdgeInput.WEIGHTS.value
AGGREGATION = "aggregation"
"""Key under which a node's ``meta`` holds its :class:`~flexgnn.core.program.program.Reduction`."""

_AGGRS: dict[type, Aggr] = {SumAggregation: "sum", MeanAggregation: "mean", MaxAggregation: "max"}
_RULES: dict[type, tuple[Rule, frozenset[Aggr]]] = {}


_PLAIN = Adjacency(weighted=False, normalization="none", self_loop_weight=None)


def aggregated(x: Tensor, query: Tensor | None = None, width: int | None = None) -> Tensor:
    """Stands for an aggregation in a traced graph. Run, it gives a tensor of the right shape and nothing more.

    Not of a convolution that is run as it is: only a try tells how many columns that returns.
    """
    return x[:, :width]


def is_convolution(node: Node) -> bool:
    """Whether ``node`` stands for a convolution that is run as it is."""
    return node.target is aggregated and node.meta[AGGREGATION].convolution is not None


def aggregate(x: Proxy, aggr: Aggr, adjacency: Adjacency | None = None) -> Proxy:
    """Record an aggregation of ``x``; over the unweighted graph as it is, where no ``adjacency`` is given."""
    if adjacency is None:
        adjacency = replace(_PLAIN, normalization="mean") if aggr == "mean" else _PLAIN
    out: Proxy = x.tracer.create_proxy("call_function", aggregated, (x,), {})
    out.node.meta[AGGREGATION] = Reduction(reduce="max" if aggr == "max" else "sum", adjacency=adjacency)
    return out


def attend(
    conv: Any, score: Score, source: Proxy, query: Proxy, self_loops: bool, negative_slope: float = 0.0
) -> Proxy:
    """Record an attention of nodes with a ``query`` to what their neighbours publish, and what becomes of heads."""
    attention = Attention(
        score=score,
        heads=conv.heads,
        channels=conv.out_channels,
        negative_slope=negative_slope,
        self_loops=self_loops,
        dropout=conv.dropout if conv.training else 0.0,
    )
    out: Proxy = source.tracer.create_proxy("call_function", aggregated, (source, query, attention.width), {})
    out.node.meta[AGGREGATION] = Reduction(reduce="attention", adjacency=_PLAIN, attention=attention)
    return out if conv.concat else out.view(-1, conv.heads, conv.out_channels).mean(1)


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


@lowers(GraphConv, "sum", "mean", "max")
def _graph(conv: Any, aggr: Aggr, x: Proxy, edge_weight: Proxy | None) -> Proxy:
    """Morris et al. 2019, equation 3, weighted by PyG."""
    weighted = replace(_PLAIN, weighted=True)
    out: Proxy = conv.lin_rel(aggregate(x, aggr, None if edge_weight is None else weighted)) + conv.lin_root(x)
    return out


@lowers(GINConv, "sum", "mean", "max")
def _gin(conv: Any, aggr: Aggr, x: Proxy, edge_weight: Proxy | None) -> Proxy:
    """Xu et al. 2019, equation 4.1."""
    out: Proxy = conv.nn(aggregate(x, aggr) + (1 + conv.eps) * x)
    return out


def _of_heads(conv: Any, x: Proxy, att: Any) -> Proxy:
    """The product of each head's channels with a vector: N x H."""
    out: Proxy = (x.view(-1, conv.heads, conv.out_channels) * att).sum(-1)
    return out


def _with_rest(conv: Any, out: Proxy, x: Proxy) -> Proxy:
    """The residual term and the bias of GAT."""
    if conv.res is not None:
        out = out + conv.res(x)
    return out if conv.bias is None else out + conv.bias


@lowers(GATConv, "sum")
def _gat(conv: Any, aggr: Aggr, x: Proxy, edge_weight: Proxy | None) -> Proxy:
    """Velickovic et al. 2018, equations 3 to 6."""
    source = conv.lin(x) if conv.lin is not None else conv.lin_src(x)
    target = source if conv.lin is not None else conv.lin_dst(x)
    keys, query = _of_heads(conv, source, conv.att_src), _of_heads(conv, target, conv.att_dst)
    published: Any = torch.cat([source, keys], -1)  # type: ignore[list-item]  # proxies
    out = attend(conv, "additive", published, query, conv.add_self_loops, conv.negative_slope)
    return _with_rest(conv, out, x)


@lowers(GATv2Conv, "sum")
def _gat_v2(conv: Any, aggr: Aggr, x: Proxy, edge_weight: Proxy | None) -> Proxy:
    """Brody et al. 2022, equation 7."""
    source = conv.lin_l(x)
    target = source if conv.share_weights else conv.lin_r(x)
    query = x.tracer.create_proxy("call_function", beside_rows, (target, conv.att), {})
    out = attend(conv, "dynamic", source, query, conv.add_self_loops, conv.negative_slope)
    return _with_rest(conv, out, x)


@lowers(TransformerConv, "sum")
def _transformer(conv: Any, aggr: Aggr, x: Proxy, edge_weight: Proxy | None) -> Proxy:
    """Shi et al. 2021, equations 3 to 5."""
    published: Any = torch.cat([conv.lin_value(x), conv.lin_key(x)], -1)
    out: Any = attend(conv, "product", published, conv.lin_query(x), self_loops=False)
    if conv.root_weight:
        skip = conv.lin_skip(x)
        if conv.lin_beta is None:
            out = out + skip
        else:
            beta = conv.lin_beta(torch.cat([out, skip, out - skip], -1)).sigmoid()
            out = beta * skip + (1 - beta) * out
    return out  # type: ignore[no-any-return]


def lower_conv(conv: MessagePassing, path: str, edges: EdgeInputs, *args: Any, **kwargs: Any) -> Proxy:
    """What ``conv(*args, **kwargs)`` computes, recorded by its rule, or to be run as it is.

    ``edges`` is what there is for each edge.

    Raises:
        LoweringError: the convolution, with its settings and inputs, can't be run exactly.
    """
    what = describe(path, type(conv))
    _check_settings(conv, what)
    given = _given(conv, what, args, kwargs)
    rule, accepted = _RULES.get(type(conv), (None, frozenset()))
    aggr = _AGGRS.get(type(conv.aggr_module))
    weighted = given.get(EDGE_WEIGHT) is not None and aggr != "sum"
    if rule is None or aggr not in accepted or weighted or _reads_attributes(conv, given):
        return _as_it_is(conv, what, edges, args, kwargs)
    x, edge_weight = _check_inputs(what, given)
    return rule(conv, aggr, x, edge_weight)


def _reads_attributes(conv: Any, given: dict[str, Any]) -> bool:
    """Whether a convolution with a rule has to do with attributes of edges, of which rules know nothing."""
    ignored = isinstance(conv, GATConv) and conv.lin_edge is None
    return getattr(conv, "lin_edge", None) is not None or (given.get("edge_attr") is not None and not ignored)


def _as_it_is(
    conv: MessagePassing, what: str, edges: EdgeInputs, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Proxy:
    """Record a convolution that no rule takes apart: it is run on parts of the graph."""
    nodes: list[Proxy] = []

    def replaced(value: Any) -> Any:
        if not isinstance(value, Proxy):
            return value
        for given in (Argument.EDGES, *EdgeInput):
            if _is_input(value, given.value):
                return given
        nodes.append(value)
        return Argument.NODES

    convolution = Convolution(
        conv=conv,
        what=what,
        args=tuple(map(replaced, args)),
        kwargs={name: replaced(value) for name, value in kwargs.items()},
        edges=edges,
    )
    if len(nodes) != 1 or Argument.EDGES not in (*convolution.args, *convolution.kwargs.values()):
        raise refuse(
            what,
            "has no rule of its own, and is not called with one tensor of node features and edge_index",
            "call it as conv(x, edge_index), with edge_weight, edge_attr or edge_type if it wants them: join features "
            "of nodes with torch.cat; take them apart, and encode attributes of edges, in a convolution of your own",
        )
    return convolve(nodes[0], convolution)


def convolve(x: Proxy, convolution: Convolution) -> Proxy:
    """Record a convolution of ``x`` that is run as it is."""
    out: Proxy = x.tracer.create_proxy("call_function", aggregated, (x,), {})
    out.node.meta[AGGREGATION] = Reduction(reduce="convolution", adjacency=_PLAIN, convolution=convolution)
    return out


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


def _given(conv: Any, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call, by name."""
    try:
        return inspect.signature(type(conv).forward).bind(conv, *args, **kwargs).arguments
    except TypeError as error:
        raise refuse(what, f"is called with wrong arguments ({error})", "call it as PyG documents it") from error


def _check_inputs(what: str, given: dict[str, Any]) -> tuple[Proxy, Proxy | None]:
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
    if given.get("return_attention_weights") is not None:
        raise refuse(
            what,
            "is asked for its attention weights",
            "FlexGNN never holds a number for each edge: leave return_attention_weights out",
        )
    if given.get("size") is not None:
        raise refuse(what, "is called with a size", "bipartite graphs aren't supported: leave size out")
    return x, edge_weight


def _is_input(value: Any, name: str) -> bool:
    return isinstance(value, Proxy) and value.node.op == "placeholder" and value.node.target == name
