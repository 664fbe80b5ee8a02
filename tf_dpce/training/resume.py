"""What is left of a stage, as calls of `fit`, which knows epochs of one length only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from tf_dpce.training.checkpoint import Progress


@dataclass(frozen=True)
class Part:
    """Whole epochs, what is left of a broken one, or the mere end of one.

    Attributes:
        first_epoch: counted from 0.
        stop_epoch: the one after the last.
        steps: of each of its epochs; 0 where all are done, and only the epoch's end is left.
        first_step: of the whole stage. Where none is left, the last one that was done.
        stop_step: the one after the last.
    """

    first_epoch: int
    stop_epoch: int
    steps: int
    first_step: int
    stop_step: int


def parts_left(start: Progress, epochs: int, steps: int) -> list[Part]:
    """Returns what is left of a stage of so many epochs of so many steps."""
    parts, epoch = [], start.epoch
    if start.step:
        stop = (epoch + 1) * steps
        first = min(epoch * steps + start.step, stop - 1)
        parts.append(Part(epoch, epoch + 1, steps - start.step, first, stop))
        epoch += 1
    if epoch < epochs:
        parts.append(Part(epoch, epochs, steps, epoch * steps, epochs * steps))
    return parts


def fit_part(
    network: keras.Model,
    part: Part,
    batches: tf.data.Dataset,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: int,
) -> None:
    """Trains a part of a stage on the batches of its steps."""
    if not part.steps:
        _end_epoch(network, part.first_epoch, callbacks)
        return
    network.fit(
        batches,
        initial_epoch=part.first_epoch,
        epochs=part.stop_epoch,
        steps_per_epoch=part.steps,
        callbacks=list(callbacks),
        verbose=verbose,
        shuffle=False,
    )


def _end_epoch(
    network: keras.Model,
    epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    everyone = keras.callbacks.CallbackList(list(callbacks), model=network)
    everyone.on_train_begin()
    everyone.on_epoch_begin(epoch)
    everyone.on_epoch_end(epoch, network.get_metrics_result())
    everyone.on_train_end()
