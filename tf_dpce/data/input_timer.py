"""Measures how long training waits for its input."""

from __future__ import annotations

import time

import tensorflow as tf


class InputTimer:
    """Adds up the seconds from the beginning of a step until its batch is there.

    The caller says when a step begins. Inside the pipeline that would be seen late: if the input is
    what is short, all threads are busy with it, and none is left to look at the clock.

    Attributes:
        seconds: the seconds waited so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ready_at: dict[int, float] = {}
        self.reset()

    def timed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the same batches and notes when each is ready. Put it behind the last prefetch.

        If one iteration begins after another, its batches replace those of the other.
        """
        return tf.data.Dataset.zip(tf.data.Dataset.counter(), batches).map(self._noted)

    def reset(self) -> None:
        """Declares that the next step takes the first batch."""
        self._step = 0

    def begin_step(self) -> None:
        """Declares that a step begins."""
        self._began = time.monotonic()

    def end_step(self) -> None:
        """Declares that the step has ended."""
        ready_at = self._ready_at.pop(self._step, self._began)
        self.seconds += max(0.0, ready_at - self._began)
        self._step += 1

    def _noted(self, number: tf.Tensor, *batch: tf.Tensor) -> tuple | tf.Tensor:
        tf.numpy_function(self._note, [number], [])
        return batch if len(batch) > 1 else batch[0]

    def _note(self, number: int) -> None:
        self._ready_at[int(number)] = time.monotonic()
