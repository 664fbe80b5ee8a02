"""Comparisons of the rows of a replica with those of the global batch. Pure Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

# A function from the rows `[B, ...]` of a replica to the rows `[G, ...]` of the global batch, its
# own rows first, through which gradients flow back. `training` passes one in, because only it
# knows the replicas.
Gather = Callable[[Any], Any]


def single_replica(rows: Any) -> Any:
    """Returns the rows themselves: the `Gather` of one replica, whose rows are the global batch."""
    return rows


def cosines(own: Any, others: Any) -> Any:
    """Returns the cosines `[B, G]` of unit vectors `[B, D]` and `[G, D]`."""
    return ops.matmul(own, ops.transpose(others))


def same_instance(own: Any, others: Any) -> Any:
    """Returns booleans `[B, G]`: whether ids `[B]` (or `[B, 1]`) and `[G]` are of one instance."""
    return ops.equal(ops.reshape(own, (-1, 1)), ops.reshape(others, (1, -1)))
