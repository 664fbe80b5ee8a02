"""A profile of a few steps, in the place where TensorBoard's profile plug-in reads it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import tensorflow as tf

# The first steps are traced and fill buffers.
_WARM_STEPS = 3


class Profiler:
    """Profiles some steps of a stage, soon after its start.

    Args:
        folder: folder of the TensorBoard run.
        steps: number of steps; 0 profiles none.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder = folder
        self._steps = steps
        self._begun = 0
        self._is_running = False
        self._trace = ExitStack()

    def begin_step(self) -> None:
        """Begins a step, and the profile if it is time."""
        self._begun += 1
        if self._steps and self._begun == _WARM_STEPS + 1:
            tf.profiler.experimental.start(str(self._folder))
            self._is_running = True
        if self._is_running:
            trace = tf.profiler.experimental.Trace("train", step_num=self._begun, _r=1)
            self._trace.enter_context(trace)

    def end_step(self) -> None:
        """Ends a step, and the profile if it has all its steps."""
        self._trace.close()
        if self._begun == _WARM_STEPS + self._steps:
            self.close()

    def close(self) -> None:
        """Writes the profile, if one has begun."""
        self._trace.close()
        if self._is_running:
            self._is_running = False
            tf.profiler.experimental.stop()
