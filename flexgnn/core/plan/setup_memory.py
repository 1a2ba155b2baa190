"""The memory that the setup of a run works in, before the first step (``runtime/setup.py``)."""

from __future__ import annotations

from collections.abc import Sequence

from flexgnn.core.plan.slots import SlotGroup
from flexgnn.core.plan.workload import Source, Workload


def setup_lists_bytes(workload: Workload, groups: Sequence[SlotGroup]) -> int:
    """Host memory that it lists halos and packs rows in, beside the slots that it fills."""
    roles = {(group.role, group.field) for group in groups}
    packed_inputs = [n for role, n in roles if role == "halo" and workload.fields[n].source is Source.STORE]
    packing = max((3 * workload.blocks.rows_per_block * workload.fields[n].row_bytes for n in packed_inputs), default=0)
    lists = 0
    for direction, halos in workload.halos.items():
        size = 8 * max(halos.edges)
        if ("own", f"{direction}/packed") in roles:
            sent = max(workload.fields[f"{direction}/sends"].rows)
            listed = halos.num_hubs + int(halos.needed.sum())
            size += 4 * workload.blocks.num_nodes + 4 * listed + 12 * sent + packing
        lists = max(lists, size)
    return lists
