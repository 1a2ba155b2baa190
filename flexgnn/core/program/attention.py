"""Attention over neighbours: an aggregation whose weights are a softmax of scores between two nodes.

``output[i] = sum over in-neighbours j of mask[i, j] * softmax over j of score[i, j] * values[j]``, for each head by
itself. Node j publishes a row of values and keys, node i has a row of queries of its own. Nothing is ever kept for an
edge: of each node and head there are the greatest score and the inverse of the sum of exponentials, from which a weight
is computed again where it is needed.

Shape legend: N nodes, H heads, C channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Score = Literal["additive", "dynamic", "product"]


@dataclass(frozen=True, kw_only=True)
class Attention:
    """How scores are made, and what becomes of them."""

    score: Score
    """``additive``: ``leaky(key[j] + query[i])``, a key and a query being one number a head (Velickovic et al. 2018,
    equation 3). ``dynamic``: ``weight . leaky(value[j] + query[i])``, where values are the keys (Brody et al. 2022,
    equation 7). ``product``: ``key[j] . query[i] / sqrt(C)`` (Shi et al. 2021, equation 3)."""
    heads: int
    channels: int
    """C."""
    negative_slope: float = 0.0
    """Of the leaky ReLU."""
    self_loops: bool = False
    """Whether every node attends to itself exactly once, whatever loops the graph has; else loops are as they are."""
    dropout: float = 0.0
    """Probability with which the weight of an edge and head is set to 0 in training, others being scaled."""
    site: int = 0
    """Number of its masks among those of the program, so that no two share one."""

    @property
    def width(self) -> int:
        """Columns of the output, and of values: H x C."""
        return self.heads * self.channels

    @property
    def source_width(self) -> int:
        """Columns of what nodes publish: values, then keys unless these are the values."""
        return self.width + {"additive": self.heads, "dynamic": 0, "product": self.width}[self.score]

    @property
    def key_width(self) -> int:
        """Columns of a query that meet keys."""
        return self.heads if self.score == "additive" else self.width

    @property
    def query_width(self) -> int:
        """Columns of a query: ``dynamic`` has the weights of the scores behind it, the same for every node."""
        return self.key_width + (self.width if self.score == "dynamic" else 0)

    @property
    def state_width(self) -> int:
        """Columns of what is kept of the softmax: the greatest score of each head, then the inverse of its sum."""
        return 2 * self.heads

    @property
    def gradient_width(self) -> int:
        """Columns of what nodes publish in backward.

        The gradient of the output, the query without weights, the softmax, and for each head the product of the output
        and its gradient.
        """
        return self.width + self.key_width + self.state_width + self.heads
