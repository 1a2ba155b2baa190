"""The fields of a workload, as they become known while a program is unrolled."""

from __future__ import annotations

from collections.abc import Iterable

from flexgnn.core.graph.layout import LINKS
from flexgnn.core.graph.store import GraphInfo
from flexgnn.core.plan.blocks import Blocks
from flexgnn.core.plan.names import LABELS, SPLIT, slice_name
from flexgnn.core.plan.slices import columns_of, sliced_names
from flexgnn.core.plan.topology import Direction, HaloCounts
from flexgnn.core.plan.workload import Field, Source
from flexgnn.core.program.adjacency import vector_names
from flexgnn.core.program.bfloat16 import BITS_DTYPE
from flexgnn.core.program.program import FEATURES, Aggregation, Program


class FieldTable:
    """Fields by name, and the slices that some come in."""

    def __init__(
        self,
        program: Program,
        info: GraphInfo,
        blocks: Blocks,
        halos: dict[Direction, HaloCounts],
        sliced: list[Aggregation],
        column_slices: int,
        rounded: frozenset[str],
    ) -> None:
        self._program, self._info, self._rounded, self._num_slices = program, info, rounded, column_slices
        self.fields: dict[str, Field] = {}
        self.slices: dict[str, tuple[str, ...]] = dict.fromkeys(sliced_names(sliced), ())
        """Empty for those that no step has asked for yet."""
        self._block_rows = tuple(blocks.rows(b) for b in range(blocks.count))
        self._add_constants(halos)

    def add(
        self, name: str, width: int | None, source: Source = Source.STEP, dtype: str = "float32", **more: str
    ) -> str:
        """Have a field of that name, in slices if it comes so; returns the name."""
        dtype = BITS_DTYPE if name in self._rounded else dtype
        if name in self.slices:
            assert width is not None
            self.slices[name] = tuple(
                self._add_field(slice_name(name, columns), len(columns), source, dtype)
                for columns in columns_of(width, self._num_slices)
            )
            return name
        return self._add_field(name, width, source, dtype, **more)

    def in_slices(self, names: Iterable[str]) -> list[str]:
        """``names``, or those of their slices."""
        return [part for name in dict.fromkeys(names) for part in self.slices.get(name, (name,))]

    def _add_field(self, name: str, width: int | None, source: Source, dtype: str, **more: str) -> str:
        self.fields.setdefault(
            name, Field(name=name, dtype=dtype, rows=self._block_rows, width=width, source=source, **more)
        )
        return name

    def _add_constants(self, halos: dict[Direction, HaloCounts]) -> None:
        info = self._info
        self.add(FEATURES, info.num_features, Source.STORE, array="features")
        for folded in self._program.folded:
            self.add(folded.name, self._program.widths[folded.name], Source.STORE, array=folded.array)
        if info.task != LINKS:
            columns = info.label_columns
            self.add(LABELS, columns, Source.STORE, dtype="int64" if columns is None else "float32", array="labels")
            self.add(SPLIT, None, Source.STORE, dtype="uint8", array="split")
        for direction, of_direction in halos.items():
            self._add_topology(direction, of_direction)
        for aggregation in self._program.aggregations:
            names = vector_names(aggregation.adjacency)
            for name in (names.row, names.loops):
                if name is not None:
                    self.add(name, None, Source.SETUP)

    def _add_topology(self, direction: Direction, halos: HaloCounts) -> None:
        sent = tuple(hubs + halos.sent_rows(b) for b, hubs in enumerate(halos.hub_rows))
        pointers = tuple(rows + 1 for rows in self._block_rows)
        edges = halos.edges
        rows_of = {"indptr": pointers, "indices": edges, "packed": edges, "sends": sent}
        if direction == "pairs":
            rows_of["types"] = edges
        elif self._info.weighted:
            rows_of["weights"] = edges
        columns: dict[str, int] = {}
        if direction == "in" and self._info.edge_columns:
            rows_of["attributes"], columns["attributes"] = edges, self._info.edge_columns
        if direction == "in" and self._info.num_edge_types:
            rows_of["types"] = edges
        dtypes = {"indptr": "int64", "weights": "float32", "attributes": "float32"}
        for array, rows in rows_of.items():
            name = f"{direction}/{array}"
            stored = array not in ("packed", "sends")
            self.fields[name] = Field(
                name=name,
                dtype=dtypes.get(array, "int32"),
                rows=rows,
                width=columns.get(array),
                source=Source.STORE if stored else Source.SETUP,
                array=name if stored else None,
            )
