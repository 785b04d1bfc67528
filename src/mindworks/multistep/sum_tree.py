"""A tree of sums: draws in proportion to priorities, and changes of priorities, in log time and in batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mindworks.errors import require


class SumTree:
    """`size` non-negative weights, 0 at first; `draw` picks an index with probability weight / total.

    The nodes lie in one array: node i has the children 2i and 2i + 1, the leaves are the last half. float64, so that
    sums of millions of weights stay exact enough to find the leaf they belong to.
    """

    def __init__(self, size: int) -> None:
        require(size >= 1, f"size must be at least 1, got {size}")
        self.size = size
        self.depth = max(1, (size - 1).bit_length())
        self.nodes = np.zeros(2 << self.depth, np.float64)

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self.nodes[1])

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights `[size]`, a view."""
        first = 1 << self.depth
        return self.nodes[first : first + self.size]

    def set(self, index: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        """Give `index[B]` the weights `weight[B]`; of an index given twice, the last weight counts."""
        node = index + (1 << self.depth)
        self.nodes[node] = weight
        for _ in range(self.depth):
            node = np.unique(node >> 1)
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def draw(self, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Indices `[B]` for `uniform[B]` in [0, 1), with replacement; some weight must be positive."""
        require(self.total > 0, "weights: none is positive, so nothing can be drawn")
        left = uniform * self.total
        node = np.ones(len(uniform), np.int64)
        for _ in range(self.depth):
            node = 2 * node
            low = self.nodes[node]
            # rounding may leave a rest that no leaf holds: it never goes down an empty branch
            right = (left >= low) & (self.nodes[node + 1] > 0)
            left = np.where(right, left - low, left)
            node += right
        return node - (1 << self.depth)
