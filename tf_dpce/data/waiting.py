"""How long training waits for its input."""

from __future__ import annotations

import tensorflow as tf


class Waiting:
    """Adds up the seconds from the moment a batch is asked for until it is there.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def within(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the same batches, each timed. Put it behind the last prefetching."""
        # A zip asks its parts in their order, so that the first one tells when.
        asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
        return tf.data.Dataset.zip(asked, batches).map(self._answered)

    def _answered(self, asked: tf.Tensor, *batch: tf.Tensor) -> tuple | tf.Tensor:
        tf.numpy_function(self._add, [tf.timestamp() - asked], [])
        return batch if len(batch) > 1 else batch[0]

    def _add(self, seconds: float) -> None:
        self.seconds += float(seconds)
