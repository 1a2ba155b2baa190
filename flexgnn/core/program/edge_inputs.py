"""What a graph holds for each edge, and what models and convolutions call it.

Shape legend: E edges, D columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from flexgnn.core.graph.store import GraphStore

_EXAMPLES = 256


class EdgeInput(Enum):
    """By the name of the argument of a model's forward, as in PyG."""

    WEIGHTS = "edge_weight"
    ATTRIBUTES = "edge_attr"
    TYPES = "edge_type"

    @property
    def array(self) -> str:
        """The array that holds it, in the order of edges by destination."""
        return {"edge_weight": "weights", "edge_attr": "attributes", "edge_type": "types"}[self.value]


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeInputs:
    """Which of them a graph has."""

    weighted: bool = False
    """Weights: float32 [E]."""
    columns: int = 0
    """D of attributes, float32 [E, D]; 0: there are none."""
    num_types: int = 0
    """Types, int64 [E], are below it; 0: there are none."""
    examples: Tensor | None = None
    """Some rows of the attributes; None: nothing is known of what they look like."""

    def __contains__(self, given: EdgeInput) -> bool:
        return given in self.present()

    def present(self) -> Iterator[EdgeInput]:
        """Those that there are."""
        if self.weighted:
            yield EdgeInput.WEIGHTS
        if self.columns:
            yield EdgeInput.ATTRIBUTES
        if self.num_types:
            yield EdgeInput.TYPES

    def sample(self, num_edges: int, *, positive: bool = False) -> dict[EdgeInput, Tensor]:
        """Something in the place of all that there are, for as many edges; the same at every call.

        ``positive``: with no attribute below 0, unless the graph's own are.
        """
        generator = torch.Generator().manual_seed(0)
        drawn = {
            EdgeInput.WEIGHTS: torch.rand(num_edges, generator=generator) + 0.1,
            EdgeInput.ATTRIBUTES: self._attributes(num_edges, generator, positive=positive),
            EdgeInput.TYPES: torch.randint(0, max(self.num_types, 1), (num_edges,), generator=generator),
        }
        return {given: drawn[given] for given in self.present()}

    def _attributes(self, num_edges: int, generator: torch.Generator, *, positive: bool) -> Tensor:
        if self.examples is not None and len(self.examples):
            return self.examples[torch.arange(num_edges) % len(self.examples)]
        drawn = torch.randn(num_edges, self.columns, generator=generator)
        return drawn.abs() if positive else drawn

    @classmethod
    def of(cls, graph: GraphStore) -> EdgeInputs:
        """Those of a graph."""
        info, examples = graph.info, None
        if info.edge_columns:
            examples = torch.from_numpy(graph.read("in/attributes", 0, min(_EXAMPLES, info.num_edges)))
        return cls(weighted=info.weighted, columns=info.edge_columns, num_types=info.num_edge_types, examples=examples)


NO_EDGE_INPUTS = EdgeInputs()
