"""Resumes a run: from which checkpoints, and what is left of a stage.

The chief reads the checkpoints and broadcasts what it has read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.logging import logger
from tf_dpce.training import checkpoint
from tf_dpce.training.best_epoch import NO_SCORE
from tf_dpce.training.checkpoint import Progress
from tf_dpce.training.run_folder import run_digest

if TYPE_CHECKING:
    from tf_dpce.training.stage import TrainingContext


def latest_stage(run: Path, stages: Sequence[int]) -> int:
    """Returns the latest of some stages that has a state to resume from; 0 if none has."""
    return max((stage for stage in stages if checkpoint.state_paths(run, stage)), default=0)


def start_from(context: TrainingContext, origin: Path | None) -> None:
    """Gives a model the best weights of another run, or if there is none those of the chief.

    Raises:
        UserError: that run has no best weights, or they are damaged or of another model.
    """
    workers, variables = context.workers, context.model.variables
    with workers.fail_together():
        if workers.is_chief and origin:
            checkpoint.restore_checkpoint(checkpoint.find_checkpoint(origin, "best"), variables)
    workers.broadcast_variables(variables)


def restore_best(context: TrainingContext, stage: int) -> None:
    """Gives a model the best weights of a stage of its run, and logs which epoch they are of.

    Raises:
        UserError: they are missing, damaged, or of another run, stage or model.
    """
    workers, run, variables = context.workers, context.run, context.model.variables
    with workers.fail_together():
        if workers.is_chief:
            path, owner = checkpoint.best_path(run, stage), (stage, run_digest(run))
            progress, _ = checkpoint.restore_checkpoint(path, variables, owner)
            logger.info(f"stage {stage}: epoch {progress.epoch} is the best")
    workers.broadcast_variables(variables)


def restore_state(
    context: TrainingContext,
    stage: int,
    variables: Sequence[keras.Variable],
    metrics: Sequence[keras.Variable] = (),
) -> tuple[Progress, list[np.ndarray]]:
    """Restores the newest readable state of a stage, the first variables of it or all.

    Damaged states that are newer are removed, so that none of them is ever taken for the newest.

    Args:
        context: what all stages share.
        stage: number of the stage.
        variables: variables of the model, or of model, dropout and optimizer.
        metrics: variables of the metrics; their values are returned, because `fit` resets them.

    Returns:
        The progress, and the values of the metrics if it is within an epoch.

    Raises:
        UserError: no state is readable, or it is of another run, stage or model.
    """
    workers, run = context.workers, context.run
    digest, values, stands = "", [np.zeros(v.shape, v.dtype) for v in metrics], np.zeros(3)
    with workers.fail_together():
        if workers.is_chief:
            digest, paths = run_digest(run), checkpoint.state_paths(run, stage)
            path, (progress, found) = checkpoint.newest_readable(
                paths, lambda path: checkpoint.restore_checkpoint(path, variables, (stage, digest))
            )
            # Of an older version, which had fewer metrics, their means begin anew.
            values = found if len(found) == len(values) else values
            for newer in paths[: paths.index(path)]:
                newer.unlink()
            stands = np.array([progress.epoch, progress.step, progress.best_score])
    workers.broadcast_variables(variables)
    epoch, step, best = workers.broadcast(stands).tolist()
    values = [workers.broadcast(value) for value in values] if metrics and step else []
    return Progress(stage, int(epoch), int(step), best, digest), values


def check_best_weights(context: TrainingContext, stages: Sequence[int], reached: Progress) -> None:
    """Refuses to resume without the best weights that the run needs at its end.

    Args:
        context: what all stages share.
        stages: numbers of the stages that are trained.
        reached: how far the run has come.

    Raises:
        UserError: those of the stage, or of an earlier one that has some, are missing, damaged or
            another run's.
    """
    run = context.run
    with context.workers.fail_together():
        for number in stages if context.workers.is_chief else ():
            best = checkpoint.best_path(run, number)
            needed = reached.best_score > NO_SCORE if number == reached.stage else best.exists()
            if number <= reached.stage and needed:
                checkpoint.read_progress(best, (number, reached.run))


class FitSegment(NamedTuple):
    """A call of `fit`: whole epochs, the rest of an interrupted one, or the mere end of one.

    Keras needs epochs of equal length.

    Attributes:
        first_epoch: first epoch, counted from 0.
        stop_epoch: the epoch after the last.
        steps: steps of each of its epochs; 0 if only the end of the epoch is left.
        first_step: first step of the whole stage.
    """

    first_epoch: int
    stop_epoch: int
    steps: int
    first_step: int

    @property
    def stop_step(self) -> int:
        """The step after the last."""
        return self.first_step + self.steps * (self.stop_epoch - self.first_epoch)


def remaining_segments(start: Progress, epochs: int, steps: int) -> list[FitSegment]:
    """Returns what is left of a stage of so many epochs of so many steps."""
    segments, epoch = [], start.epoch
    if start.step:
        first_step = epoch * steps + start.step
        segments.append(FitSegment(epoch, epoch + 1, steps - start.step, first_step))
        epoch += 1
    if epoch < epochs:
        segments.append(FitSegment(epoch, epochs, steps, epoch * steps))
    return segments


def fit_segment(
    trainer: keras.Model,
    segment: FitSegment,
    batches: tf.data.Dataset,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a segment of a stage on the batches of its steps."""
    epoch = segment.first_epoch
    if segment.steps:
        trainer.fit(
            batches,
            initial_epoch=epoch,
            epochs=segment.stop_epoch,
            steps_per_epoch=segment.steps,
            callbacks=list(callbacks),
            verbose=0,
            shuffle=False,
        )
        return
    everyone = keras.callbacks.CallbackList(list(callbacks), model=trainer)
    everyone.on_train_begin()
    everyone.on_epoch_begin(epoch)
    everyone.on_epoch_end(epoch, trainer.get_metrics_result())
    everyone.on_train_end()
