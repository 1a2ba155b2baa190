"""What a planner decides, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Access = Literal["packed", "blocks", "loaded", "ahead", "resident", "held"]
"""How other blocks reach a published field.

``packed``: each block's rows that others need are written out next to each other, and read back as halos; those of
hubs stay in the compute tier.
``blocks``: each block is written out as it is, and read whole by all that need any of its rows.
``loaded``: each block is written out as it is; all of the field is read back into the compute tier when a phase begins
that pulls from it, and stays there for as long.
``ahead``: likewise, but it is read back during the phase before.
``resident``: the field stays whole in the compute tier until it was last pulled.
``held``: likewise, until it was last read at all.
"""

BY_HALOS: frozenset[Access] = frozenset({"packed", "blocks"})
"""The kinds of access in which a block reads the rows of others into a halo."""

WHOLE_FOR_A_PHASE: frozenset[Access] = frozenset({"loaded", "ahead"})
"""The kinds of access in which a field is written out by blocks, and read back as a whole."""

TensorKey = tuple[str, int]
"""A field's part at a block."""


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """What backward computes again instead of reading it."""

    values: frozenset[str] = frozenset()
    """Inputs of segments that other segments made: computed again from the inputs of those."""
    segments: frozenset[int] = frozenset()
    """Stages whose hidden values are computed again. Those of other stages are fields, which forward writes."""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """All choices of a plan; everything else follows from them."""

    tiles_per_block: int
    lookahead: int
    """How many steps before its use a load is issued, and after its step a write may end: 0 or 1."""
    access: dict[str, Access]
    """By published field."""
    hub_blocks: int = 0
    """Nodes that at least so many other blocks pull from are hubs of all packed fields: a power of two; 0: no hubs."""
    column_slices: int = 1
    """How many slices of columns fields are pulled in, one after the other, where they can be (see ``slices.py``)."""
    kept: frozenset[tuple[str, int, int]] = field(default_factory=frozenset)
    """(field, block, step): the tensor stays in the compute tier until that step reads it, from its use before.
    A tensor of the store or of the setup that is kept stays for the whole run; its step is -1."""
    recomputed: Recomputed = field(default_factory=Recomputed)
    placed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By part (see ``placement.py``): the storage tier of each block. What is missing is on the first tier."""

    def with_access(self, name: str, access: Access) -> Decisions:
        """The same with another way to reach field ``name``."""
        return replace(self, access={**self.access, name: access})
