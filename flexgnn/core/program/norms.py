"""How norms whose statistics are over all rows become row-local functions around moments.

A rule is an ordinary function over ``torch.fx`` proxies, as those of convolutions are. It asks for the moments of its
input, turns them into a center and a scale for each column (functions of :data:`AFFINE_FUNCTIONS`, on vectors alone),
and applies these to each row.

Shape legend: R rows of a tile, D width.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.nn import BatchNorm1d
from torch_geometric.nn import BatchNorm, GraphNorm, InstanceNorm, LayerNorm, MeanSubtractionNorm, PairNorm

from flexgnn.core.program.moments import Moments, column_moments
from flexgnn.core.program.refusals import describe, refuse
from flexgnn.core.program.row_context import RowContext
from flexgnn.core.program.row_functions import standardized


def batch_affine(moments: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Center and scale (2 x D) of a batch norm (Ioffe and Szegedy 2015, algorithm 1), its bias excepted."""
    return _affine(moments[0], torch.rsqrt(moments[1] + eps), weight)


def tracked_affine(
    moments: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, eps: float, rows: RowContext
) -> Tensor:
    """:func:`batch_affine` of the moments in training, of the running ``mean`` and ``variance`` in evaluation."""
    running = torch.stack([mean, variance])
    if running.shape != moments.shape:
        raise ValueError(f"it has {len(mean)} channels, its input {moments.shape[1]}")
    return batch_affine(moments if rows.training else running, weight, eps)


def graph_affine(moments: Tensor, weight: Tensor, mean_scale: Tensor, eps: float) -> Tensor:
    """Center and scale (2 x D) of GraphNorm (Cai et al. 2021, equation 6), its bias excepted."""
    mean, variance = moments
    kept = mean - mean * mean_scale
    return _affine(mean * mean_scale, torch.rsqrt(variance + kept**2 + eps), weight)


def layer_affine(moments: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Center and scale (2 x D) of PyG's LayerNorm over all nodes and channels, its bias excepted."""
    means, variances = moments
    mean = means.mean()
    deviation = (variances + (means - mean) ** 2).mean().sqrt()
    return _affine(mean.expand_as(means), (1 / (deviation + eps)).expand_as(means), weight)


def pair_affine(moments: Tensor, scale: float, eps: float) -> Tensor:
    """Center and scale (2 x D) of PairNorm (Zhao and Akoglu 2020, equations 10 and 11)."""
    return _affine(moments[0], (scale * torch.rsqrt(moments[1].sum() + eps)).expand_as(moments[0]), None)


def center_affine(moments: Tensor) -> Tensor:
    """The means, and scales of 1 (2 x D)."""
    return _affine(moments[0], torch.ones_like(moments[0]), None)


AFFINE_FUNCTIONS = frozenset((batch_affine, tracked_affine, graph_affine, layer_affine, pair_affine, center_affine))
"""Functions from moments to a center and a scale for each column."""


def _affine(center: Tensor, scale: Tensor, weight: Tensor | None) -> Tensor:
    if weight is not None and weight.shape != scale.shape:
        raise ValueError(f"it has {len(weight)} channels, its input {len(scale)}")
    return torch.stack([center, scale if weight is None else scale * weight])


Rule = Callable[[Any, Proxy], Proxy]


def _record(function: Callable[..., Any], subject: Proxy, *more: Any) -> Proxy:
    out: Proxy = subject.tracer.create_proxy("call_function", function, (subject, *more), {})
    return out


def _standardize(x: Proxy, affine: Proxy, bias: Proxy | None = None) -> Proxy:
    out = _record(standardized, x, affine)
    return out if bias is None else _record(operator.add, out, bias)


def _batch(norm: Any, x: Proxy) -> Proxy:
    moments = _record(column_moments, x)
    if norm.track_running_stats:
        affine = _record(tracked_affine, moments, norm.running_mean, norm.running_var, norm.weight, norm.eps)
    else:
        affine = _record(batch_affine, moments, norm.weight, norm.eps)
    return _standardize(x, affine, norm.bias)


def _graph(norm: Any, x: Proxy) -> Proxy:
    affine = _record(graph_affine, _record(column_moments, x), norm.weight, norm.mean_scale, norm.eps)
    return _standardize(x, affine, norm.bias)


def _layer(norm: Any, x: Proxy) -> Proxy:
    return _standardize(x, _record(layer_affine, _record(column_moments, x), norm.weight, norm.eps), norm.bias)


def _pair(norm: Any, x: Proxy) -> Proxy:
    moments = _record(column_moments, x)
    if not norm.scale_individually:
        return _standardize(x, _record(pair_affine, moments, norm.scale, norm.eps))
    centered = _standardize(x, _record(center_affine, moments))
    out: Proxy = norm.scale * centered / (norm.eps + centered.norm(2, -1, keepdim=True))
    return out


def _mean_subtraction(norm: Any, x: Proxy) -> Proxy:
    return _standardize(x, _record(center_affine, _record(column_moments, x)))


_RULES: dict[type, Rule] = {
    BatchNorm1d: _batch,
    BatchNorm: lambda norm, x: _batch(norm.module, x),
    InstanceNorm: _batch,  # of one graph
    GraphNorm: _graph,
    LayerNorm: _layer,
    PairNorm: _pair,
    MeanSubtractionNorm: _mean_subtraction,
}

GLOBAL_NORMS = tuple(sorted({cls.__name__ for cls in _RULES}))
"""Names of the norms that have a rule."""


def is_global_norm(module: torch.nn.Module) -> bool:
    """Whether ``module`` takes its statistics over all rows, and has a rule."""
    return type(module) in _RULES and not (isinstance(module, LayerNorm) and module.mode == "node")


def lower_norm(norm: torch.nn.Module, path: str, training: bool, *args: Any, **kwargs: Any) -> Proxy:
    """What ``norm(*args, **kwargs)`` computes in a model in ``training`` or evaluation, recorded by its rule.

    Raises:
        LoweringError: it can't be had exactly with these settings or inputs.
    """
    what = describe(path, type(norm))
    x, *others = list(inspect.signature(type(norm).forward).bind(norm, *args, **kwargs).arguments.values())[1:]
    if not isinstance(x, Proxy) or any(other is not None for other in others):
        raise refuse(what, "is called with more than one tensor of node features", "pass x alone: there is one graph")
    _check_settings(norm.module if isinstance(norm, BatchNorm) else norm, training, what)
    return _RULES[type(norm)](norm, x)


def _check_settings(norm: Any, training: bool, what: str) -> None:
    tracked = getattr(norm, "track_running_stats", False)
    if tracked != (getattr(norm, "running_mean", None) is not None):
        raise refuse(what, f"had track_running_stats set to {tracked} after it was made", "make it with that setting")
    if tracked and norm.training != training:
        raise refuse(what, "is in evaluation while the model is in training", "don't override train() of the model")
    if tracked and norm.momentum is None and isinstance(norm, InstanceNorm):
        raise refuse(what, "has momentum=None, with which PyG can't update its statistics", "give it a number")


def update_running(norm: Any, moments: Moments) -> None:
    """Put the ``moments`` of one epoch into the running statistics of ``norm``, as torch does in a training pass."""
    factor = norm.momentum
    if not isinstance(norm, InstanceNorm):  # these don't count
        norm.num_batches_tracked.add_(1)
        factor = 1 / float(norm.num_batches_tracked) if factor is None else factor
    norm.running_mean.mul_(1 - factor).add_(moments.tensor[0], alpha=factor)
    norm.running_var.mul_(1 - factor).add_(moments.unbiased_variance, alpha=factor)
