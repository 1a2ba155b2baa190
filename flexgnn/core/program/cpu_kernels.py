"""The kernels of a CPU: those of ``kernels.py`` and ``attention_kernels.py``, over the memory of tensors."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from flexgnn.core.program import kernels
from flexgnn.core.program.attention import Attention
from flexgnn.core.program.attention_kernels import NO_POSITIONS, form_of, mask_of, pull_attention
from flexgnn.core.program.bfloat16 import stored_array
from flexgnn.core.program.kernels import NO_CURSOR, NO_VECTOR
from flexgnn.core.program.neighbors import Neighbors
from flexgnn.core.program.row_kernels import Place, RowKernels
from flexgnn.core.tier import Array


class CpuKernels(RowKernels):
    """Compiled loops, each on one thread and without the GIL."""

    def pull_sum(
        self, n: Neighbors, first: int, weights: Tensor | None, loops: Tensor | None, scale: Tensor | None, out: Tensor
    ) -> None:
        vectors = (_vector(weights), _vector(loops), _vector(scale))
        kernels.pull_sum(*_reach(n), n.indptr.numpy(), n.indices.numpy(), *vectors, n.own, first, out.numpy())

    def pull_max(self, n: Neighbors, first: int, out: Tensor, ties: Tensor) -> None:
        kernels.pull_max(*_reach(n), n.indptr.numpy(), n.indices.numpy(), first, out.numpy(), ties.numpy())

    def pull_max_gradient(self, n: Neighbors, first: int, value: Tensor, out: Tensor) -> None:
        kernels.pull_max_gradient(*_reach(n), n.indptr.numpy(), n.indices.numpy(), first, value.numpy(), out.numpy())

    def pull_attention(
        self,
        n: Neighbors,
        place: Place,
        attention: Attention,
        work: int,
        rows: Tensor,
        queries: Tensor,
        out: Tensor,
        state: Tensor,
    ) -> None:
        mask = mask_of(attention, place.rows)
        positions = n.positions.numpy() if mask.threshold else NO_POSITIONS
        adjacency = n.indptr.numpy(), n.indices.numpy(), positions
        where = n.own, place.first, place.rows.start, work
        arrays = rows.numpy(), queries.numpy(), out.numpy(), state.numpy()
        pull_attention(*_reach(n), *adjacency, *where, form_of(attention), mask, *arrays)

    def gather(self, rows: Tensor, chosen: Tensor, out: Tensor) -> None:
        # With mode "clip" numpy writes straight to `out`.
        np.take(stored_array(rows), chosen.numpy(), axis=0, out=stored_array(out), mode="clip")

    def add_rows(self, out: Tensor, rows: Tensor, values: Tensor) -> None:
        kernels.add_rows(out.numpy(), rows.numpy(), values.contiguous().numpy())


def _vector(vector: Tensor | None) -> Array:
    return NO_VECTOR if vector is None else vector.numpy()


def _reach(n: Neighbors) -> tuple[Array, Array, Array, int, int, Array, Array, bool]:
    """The rows of neighbours, as compiled loops take them."""
    rows = stored_array(n.local), stored_array(n.hubs), stored_array(n.halo)
    cursors = (NO_CURSOR if cursor is None else cursor.numpy() for cursor in (n.cursor, n.next_cursor))
    return *rows, n.halo_start, n.halo_stop, *cursors, n.last_pass  # type: ignore[return-value]
