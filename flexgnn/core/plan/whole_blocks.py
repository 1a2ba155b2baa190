"""Halos that are whole blocks: all rows of every block that any row is needed of.

Nothing is packed then: a block is written once, as a tensor that is read again later anyway, and each other block that
needs any of its rows reads all of them. That suits few blocks with dense halos.
"""

from __future__ import annotations

from dataclasses import replace

from flexgnn.core.plan.topology import Direction, HaloCounts
from flexgnn.core.plan.workload import Field, Phase, Pull, Source, Workload


def with_whole_blocks(workload: Workload, names: frozenset[str], halos: dict[Direction, HaloCounts]) -> Workload:
    """``workload`` where pulls of the fields ``names`` read whole blocks, of which ``halos`` has the sizes."""

    def changed(pull: Pull) -> Pull:
        return replace(pull, whole_blocks=pull.field in names)

    def changed_phase(phase: Phase) -> Phase:
        return replace(phase, pulls=tuple(changed(pull) for pull in phase.pulls))

    localized = [
        Field(name=f"{direction}/blocks", dtype="int32", rows=counts.edges, width=None, source=Source.SETUP)
        for direction, counts in halos.items()
    ]
    return replace(
        workload,
        block_halos=halos,
        fields={**workload.fields, **{field.name: field for field in localized}},
        phases=tuple(changed_phase(phase) for phase in workload.phases),
        published={name: changed(pull) for name, pull in workload.published.items()},
    )
