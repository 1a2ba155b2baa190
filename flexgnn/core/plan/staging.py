"""How much host memory the copies of a plan take, where the compute tier is apart from that memory."""

from __future__ import annotations

from collections.abc import Collection

from flexgnn.core.copies import PIECE_BYTES
from flexgnn.core.plan.placement import field_of, stored_parts
from flexgnn.core.plan.plan import Plan


def staging_bytes(plan: Plan, lending: Collection[str]) -> int:
    """Bytes of all buffers that rows go through. Tiers that are ``lending`` their memory need none.

    Each thread that reads has two pieces; each that writes has room for the largest blob that it writes.
    """
    largest: dict[str, int] = {}
    group_rows = plan.workload.blocks.rows_per_block
    for stored in stored_parts(plan.workload, plan.arena.groups):
        tier = plan.tier_of(stored.part, stored.block)
        size_bytes = stored.size_bytes
        field = field_of(stored.part)
        if field != stored.part:  # packs are written in groups
            size_bytes = min(size_bytes, group_rows * plan.workload.fields[field].row_bytes)
        largest[tier] = max(largest.get(tier, 0), size_bytes)
    behind = {tier: size for tier, size in largest.items() if tier not in lending}
    readers = 2 + len(behind)  # the setup and the store have one each
    widest = max((field.row_bytes for field in plan.workload.fields.values()), default=0)
    return readers * 2 * max(PIECE_BYTES, widest) + sum(behind.values())
