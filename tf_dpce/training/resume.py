"""Splits the rest of a stage into calls of `fit`, because Keras needs epochs of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from tf_dpce.training.checkpoint import Progress


@dataclass(frozen=True)
class FitSegment:
    """Whole epochs, the rest of an interrupted one, or the mere end of one.

    Attributes:
        first_epoch: first epoch, counted from 0.
        stop_epoch: the epoch after the last.
        steps: steps of each of its epochs; 0 if only the end of the epoch is left.
        first_step: first step of the whole stage.
        stop_step: the step after the last.
    """

    first_epoch: int
    stop_epoch: int
    steps: int
    first_step: int
    stop_step: int


def remaining_segments(start: Progress, epochs: int, steps: int) -> list[FitSegment]:
    """Returns what is left of a stage of so many epochs of so many steps."""
    segments, epoch = [], start.epoch
    if start.step:
        stop = (epoch + 1) * steps
        first = epoch * steps + start.step
        segments.append(FitSegment(epoch, epoch + 1, steps - start.step, first, stop))
        epoch += 1
    if epoch < epochs:
        segments.append(FitSegment(epoch, epochs, steps, epoch * steps, epochs * steps))
    return segments


def fit_segment(
    trainer: keras.Model,
    segment: FitSegment,
    batches: tf.data.Dataset,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a segment of a stage on the batches of its steps."""
    if not segment.steps:
        _end_epoch(trainer, segment.first_epoch, callbacks)
        return
    trainer.fit(
        batches,
        initial_epoch=segment.first_epoch,
        epochs=segment.stop_epoch,
        steps_per_epoch=segment.steps,
        callbacks=list(callbacks),
        verbose=0,
        shuffle=False,
    )


def _end_epoch(
    trainer: keras.Model, epoch: int, callbacks: Sequence[keras.callbacks.Callback]
) -> None:
    everyone = keras.callbacks.CallbackList(list(callbacks), model=trainer)
    everyone.on_train_begin()
    everyone.on_epoch_begin(epoch)
    everyone.on_epoch_end(epoch, trainer.get_metrics_result())
    everyone.on_train_end()
