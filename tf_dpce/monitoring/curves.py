"""The points of the curves of training: means of the steps since the point before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tf_dpce.config import StageConfig
from tf_dpce.data.input_timer import InputTimer

# Outputs of the model by the key of their loss in the configuration.
_CLASSES = {"image_instance": "image_logits", "text_instance": "text_logits"}
_OUTPUTS = {**_CLASSES, "pair": "pair", "distillation": "distillation"}


class Curves:
    """Turns the running means of an epoch, which Keras logs, into means of a few steps.

    Args:
        settings: settings of the stage.
        timer: measures how long training waits for batches.
    """

    def __init__(self, settings: StageConfig, timer: InputTimer) -> None:
        self._batch_size = settings.batch_size
        self._timer = timer
        weights = {part: getattr(settings.loss, part) for part in _OUTPUTS}
        self._weights = {part: weight for part, weight in weights.items() if weight}
        self._is_warm = False

    def begin_epoch(self, done: int) -> None:
        """Begins an epoch of which some steps are done, by a process that ended, or none."""
        self._done = done
        # What a former process knew of its last steps is lost.
        self._means = None if done else dict.fromkeys(self._running_means({}), 0.0)
        self._begin_timing(done)

    def end_step(self, done: int) -> None:
        """Notes how many steps of the epoch are done."""
        if not self._is_warm:
            # The first step is traced and fills the buffers.
            self._is_warm = True
            self._begin_timing(done)

    def point(self, logs: Mapping[str, Any], done: int) -> dict[str, float]:
        """Returns the values of the steps since the last point, by tag.

        Args:
            logs: what Keras logs of the epoch so far.
            done: number of steps of the epoch that are done.
        """
        means, before, values = self._running_means(logs), self._means, {}
        if before is not None:
            sums = {tag: done * mean - self._done * before[tag] for tag, mean in means.items()}
            # No loss is negative, but for the rounding of its mean.
            values = {tag: max(0.0, value) / (done - self._done) for tag, value in sums.items()}
        self._done, self._means = done, means
        seconds = time.monotonic() - self._began
        if done > self._timed:
            waited = self._timer.seconds - self._waited
            values["speed/images a second"] = self._batch_size * (done - self._timed) / seconds
            values["speed/share waiting for input"] = waited / seconds
        self._begin_timing(done)
        return values

    def _running_means(self, logs: Mapping[str, Any]) -> dict[str, float]:
        total = float(logs.get("loss", 0.0))
        values = {"loss/total": total}
        for part, weight in self._weights.items():
            output = _OUTPUTS[part]
            # Keras logs a sole loss only as the weighted `loss`.
            values[f"loss/{part}"] = float(logs.get(f"{output}_loss", total / weight))
            if part in _CLASSES:
                values[f"accuracy/{part}"] = float(logs.get(f"{output}_accuracy", 0.0))
        return values

    def _begin_timing(self, done: int) -> None:
        self._timed, self._began, self._waited = done, time.monotonic(), self._timer.seconds
