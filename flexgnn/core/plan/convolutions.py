"""What convolutions that are run as they are take of memory and time: tried on a few rows, and extrapolated.

Shape legend: T nodes of a tile, H further in-neighbours of theirs, E edges into the tile, D columns of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from flexgnn.core.plan.work import Work, tile_work
from flexgnn.core.plan.workload import PhaseKind
from flexgnn.core.plan.workspace import bytes_for_rows, measured_bytes
from flexgnn.core.program.convolution import Convolution, Neighborhood
from flexgnn.core.program.edge_inputs import EdgeInput, EdgeInputs
from flexgnn.core.program.program import Aggregation, Program

_EDGE_BYTES, _ROW_BYTES, _COMPARED_BYTES = 64, 32, 40
"""Of an edge and a row of a neighbourhood, and of an edge that is compared with what is drawn, while it is put
together: int64, several arrays at a time."""


@dataclass(frozen=True, kw_only=True)
class TileShape:
    """How large the neighbourhood of a tile is."""

    rows: int
    """T."""
    edges: int
    """E."""
    others: int
    """H."""
    compared: int = 0
    """Edges of the graph that no pair may be drawn of."""

    def scaled(self, rows: int) -> TileShape:
        """The same shares at another number of rows."""
        return TileShape(
            rows=rows,
            edges=math.ceil(self.edges * rows / self.rows),
            others=math.ceil(self.others * rows / self.rows),
            compared=math.ceil(self.compared * rows / self.rows),
        )


ShapeOf = Callable[[Convolution], TileShape]
"""Of a tile, for a convolution: they may run over different edges."""


def convolutions_run(program: Program, stage: int, kind: PhaseKind) -> list[Aggregation]:
    """Those that a phase runs: for their output, or once more, to be differentiated."""
    found = [a for a in program.aggregations_at(stage) if a.convolution is not None]
    return [a for a in found if a.output in program.needs_grad] if kind == "backward" else found


def convolutions_bytes(program: Program, stage: int, kind: PhaseKind, largest: ShapeOf) -> int:
    """Of one tile: the most of any of them, with edges spread evenly, or all to one node and of one type.

    Bytes are taken to grow linearly with the tile.
    """

    def measured(aggregation: Aggregation, *, skewed: bool) -> int:
        whole = largest(_convolution(aggregation))

        def at(rows: int) -> int:
            shape = whole.scaled(rows)
            held = _EDGE_BYTES * shape.edges + _ROW_BYTES * (shape.rows + shape.others)
            held += _COMPARED_BYTES * shape.compared
            return held + measured_bytes(_prepared(program, aggregation, kind, shape, skewed=skewed))

        return bytes_for_rows(at, whole.rows)

    run = convolutions_run(program, stage, kind)
    return max((measured(aggregation, skewed=skewed) for aggregation in run for skewed in (False, True)), default=0)


def convolutions_work(program: Program, stage: int, kind: PhaseKind, usual: ShapeOf) -> Work:
    """On one tile: of all of them."""

    def of_one(aggregation: Aggregation) -> Work:
        whole = usual(_convolution(aggregation))
        return tile_work(lambda rows: _prepared(program, aggregation, kind, whole.scaled(rows)), whole.rows)

    return sum(map(of_one, convolutions_run(program, stage, kind)), Work())


def _convolution(aggregation: Aggregation) -> Convolution:
    assert aggregation.convolution is not None, "others have rules"
    return aggregation.convolution


def _prepared(
    program: Program, aggregation: Aggregation, kind: PhaseKind, shape: TileShape, *, skewed: bool = False
) -> Callable[[], object]:
    convolution, columns = _convolution(aggregation), program.widths[aggregation.input]
    count = shape.rows + shape.others
    whole, part = torch.ones(count, columns), _sample(shape, convolution.edges, skewed=skewed)
    gradient = torch.ones(shape.rows, program.widths[aggregation.output])
    of_input = aggregation.input in program.needs_grad

    def run() -> None:
        if kind != "backward":
            convolution.forward(whole[part.rows], part)
        if kind in ("loss", "backward") and aggregation.output in program.needs_grad:
            convolution.backward(whole[part.rows], part, gradient, of_input=of_input)

    return run


def _sample(shape: TileShape, inputs: EdgeInputs, *, skewed: bool) -> Neighborhood:
    edges = np.arange(shape.edges)
    sources = edges % (shape.rows + shape.others)
    targets = np.zeros_like(edges) if skewed else np.sort(edges % shape.rows)
    edge_data = inputs.sample(shape.edges)
    if skewed and EdgeInput.TYPES in edge_data:
        edge_data[EdgeInput.TYPES].zero_()
    return Neighborhood(
        rows=np.arange(shape.rows + shape.others),
        num_targets=shape.rows,
        edge_index=torch.from_numpy(np.stack([sources, targets])),
        edge_data=edge_data,
    )
