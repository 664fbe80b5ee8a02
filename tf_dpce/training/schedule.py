"""The learning rate over a stage."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tf_dpce.config import StageConfig


class StageSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise from 0, then steps down to a tenth each, or half a cosine down to 0.

    Args:
        learning_rate: at its highest.
        total_steps: steps of the whole stage.
        warmup_steps: steps of the rise.
        decay_steps: steps at which the rate falls to a tenth; None asks for the cosine.
    """

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        warmup_steps: int = 0,
        decay_steps: tuple[int, ...] | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps

    def __call__(self, step: Any) -> Any:
        """Returns the rate (scalar) of a step counted from 0."""
        step = ops.cast(step, "float32")
        rise = ops.minimum(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.learning_rate * rise * self._fall(step)

    def _fall(self, step: Any) -> Any:
        if self.decay_steps is None:
            span = max(1, self.total_steps - self.warmup_steps)
            done = ops.clip((step - self.warmup_steps) / span, 0.0, 1.0)
            return (1 + ops.cos(math.pi * done)) / 2
        falls = sum((ops.cast(step >= start, "float32") for start in self.decay_steps), 0.0)
        return ops.power(0.1, falls)


def stage_schedule(stage: StageConfig, steps_per_epoch: int) -> StageSchedule:
    """Returns the schedule that a stage's configuration asks for."""
    steps = tuple(epoch * steps_per_epoch for epoch in stage.decay_epochs)
    return StageSchedule(
        stage.learning_rate,
        total_steps=stage.epochs * steps_per_epoch,
        warmup_steps=round(stage.warmup_epochs * steps_per_epoch),
        decay_steps=None if stage.schedule == "cosine" else steps,
    )
