"""What a row meets in a loss over the batch: rows of all replicas, its own replica's first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

# From rows at hand `[B, ...]` to those of the global batch, the rows at hand first.
Gather = Callable[[Any], Any]


def alone(rows: Any) -> Any:
    """A `Gather` for one replica: its rows `[B, ...]` are the global batch."""
    return rows


def cosines(own: Any, others: Any) -> Any:
    """Returns floats `[B, G]` of unit vectors `[B, D]` and `[G, D]`."""
    return ops.matmul(own, ops.transpose(others))


def same_instance(own: Any, others: Any) -> Any:
    """Returns booleans `[B, G]`: whether ids `[B]` (or `[B, 1]`) and `[G]` are of one instance."""
    return ops.equal(ops.reshape(own, (-1, 1)), ops.reshape(others, (1, -1)))
