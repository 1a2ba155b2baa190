"""Fields in slices of columns: summing over neighbours is done for each column by itself.

All rows of a few columns fit where all rows of all columns do not. Such a field is written as several fields, each of
some of its columns, and pulled from in as many phases, each of which needs one of them at all rows: no halo, however
dense, and the same order of summation for every element. The phase that uses the sums reads them at its own rows.
"""

from __future__ import annotations

from collections.abc import Iterable

from flexgnn.core.plan.names import EVALUATION, gradient_name, prefixed, published_name, pulled_gradient_name
from flexgnn.core.program.program import Aggregation, Program, is_stored

SLICE_CHOICES = (1, 2, 4, 8)
"""For :attr:`Decisions.column_slices`."""
_LEAST_COLUMNS = 16
"""Of a slice: a cache line of 64 bytes."""


def columns_of(width: int, slices: int) -> list[range]:
    """The columns of each of at most ``slices`` slices of a field: whole cache lines, but for the last."""
    lines = -(-width // _LEAST_COLUMNS)
    columns = -(-lines // slices) * _LEAST_COLUMNS
    return [range(start, min(start + columns, width)) for start in range(0, width, columns)]


def sliced_aggregations(program: Program, slices: int) -> list[Aggregation]:
    """Those whose inputs are pulled in several slices.

    Sums only, of what steps make: a maximum's gradient compares rows as they were pulled, attention has a weight for
    several columns, and what the store holds is stored by rows.
    """
    by_rows = {published_name(a.input, a) for a in program.aggregations if a.reduce != "sum"}
    return [
        a
        for a in program.aggregations
        if a.reduce == "sum"
        and not is_stored(a.input)
        and published_name(a.input, a) not in by_rows
        and len(columns_of(program.widths[a.output], slices)) > 1
    ]


def useful_slices(program: Program) -> list[int]:
    """The choices that differ for ``program``."""
    found: dict[tuple[int, ...], int] = {}
    for slices in SLICE_CHOICES:
        aggregations = sliced_aggregations(program, slices)
        found.setdefault(tuple(len(columns_of(program.widths[a.output], slices)) for a in aggregations), slices)
    return sorted(found.values())


def sliced_names(aggregations: Iterable[Aggregation]) -> set[str]:
    """The fields that come in slices where ``aggregations`` do."""
    names = set()
    for aggregation in aggregations:
        for prefix in ("", EVALUATION):
            names |= {prefixed(published_name(aggregation.input, aggregation), prefix), prefix + aggregation.output}
        names |= {gradient_name(aggregation), pulled_gradient_name(aggregation)}
    return names
