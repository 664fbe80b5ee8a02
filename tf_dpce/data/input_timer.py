"""How long training waits for its input."""

from __future__ import annotations

import time

import tensorflow as tf


class Waiting:
    """Adds up the seconds from the moment a step wants its batch until the batch is there.

    The moment is told by who takes the steps. Inside the pipeline it would be seen late: where the
    input is what is short, all threads are busy with it, and none is left to look at the clock.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._there: dict[int, float] = {}
        self.begin()

    def within(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the same batches, each noted as it is there. Put it behind the last prefetching.

        One iteration begun after another notes its batches in place of the other's.
        """
        return tf.data.Dataset.zip(tf.data.Dataset.counter(), batches).map(self._noted)

    def begin(self) -> None:
        """Says that the next step takes the first batch."""
        self._step = 0

    def wanted(self) -> None:
        """Says that a step begins."""
        self._since = time.monotonic()

    def taken(self) -> None:
        """Says that the step has been taken."""
        self.seconds += max(0.0, self._there.pop(self._step, self._since) - self._since)
        self._step += 1

    def _noted(self, number: tf.Tensor, *batch: tf.Tensor) -> tuple | tf.Tensor:
        tf.numpy_function(self._note, [number], [])
        return batch if len(batch) > 1 else batch[0]

    def _note(self, number: int) -> None:
        self._there[int(number)] = time.monotonic()
