"""Restores weights and states. The chief reads the files and broadcasts what it has read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from tf_dpce.training.checkpoint import (
    Progress,
    best_path,
    check_owner,
    find_checkpoint,
    newest_readable,
    restore_checkpoint,
    state_paths,
)
from tf_dpce.training.run_folder import run_digest

if TYPE_CHECKING:
    from tf_dpce.training.stage import TrainingContext


def latest_stage(run: Path, stages: Sequence[int]) -> int:
    """Returns the latest of some stages that has a state to resume from; 0 if none has."""
    return max((stage for stage in stages if state_paths(run, stage)), default=0)


def start_from(context: TrainingContext, origin: Path | None) -> None:
    """Gives a model the best weights of another run, or if there is none those of the chief.

    Raises:
        UserError: that run has no best weights, or they are damaged or of another model.
    """
    workers, variables = context.workers, context.model.variables
    with workers.fail_together():
        if workers.is_chief and origin:
            restore_checkpoint(find_checkpoint(origin, "best"), variables)
    workers.broadcast_variables(variables)


def restore_best(context: TrainingContext, stage: int) -> None:
    """Gives a model the best weights of a stage of its run.

    Raises:
        UserError: they are missing, damaged, or of another run, stage or model.
    """
    workers, run, variables = context.workers, context.run, context.model.variables
    with workers.fail_together():
        if workers.is_chief:
            restore_checkpoint(best_path(run, stage), variables, (stage, run_digest(run)))
    workers.broadcast_variables(variables)


def resume_weights(context: TrainingContext, stages: Sequence[int], stage: int) -> int:
    """Gives a model the weights of the newest readable state of the stage that a run resumes in.

    Damaged states that are newer are removed, so that none of them is ever taken for the newest.

    Args:
        context: what all stages share.
        stages: numbers of the stages that are trained.
        stage: latest of them that has a state.

    Returns:
        How many epochs of the stage are finished.

    Raises:
        UserError: no state is readable, or it is of another run, stage or model; or the best
            weights of this stage or of an earlier one are, because the run needs them at its end.
    """
    workers, run, variables = context.workers, context.run, context.model.variables
    epochs = 0
    with workers.fail_together():
        if workers.is_chief:
            digest = run_digest(run)
            path, (progress, _) = newest_readable(
                state_paths(run, stage),
                lambda path: restore_checkpoint(path, variables, (stage, digest)),
            )
            for number in stages:
                best = best_path(run, number)
                needed = progress.best_rsum >= 0 if number == stage else best.exists()
                if number <= stage and needed:
                    check_owner(best, number, digest)
            for newer in state_paths(run, stage):
                if newer == path:
                    break
                newer.unlink()
            epochs = progress.epoch
    workers.broadcast_variables(variables)
    return int(workers.broadcast(np.array([epochs], np.int32))[0])


def restore_state(
    context: TrainingContext,
    stage: int,
    variables: Sequence[keras.Variable],
    metrics: Sequence[keras.Variable],
) -> tuple[Progress, list[np.ndarray]]:
    """Restores the whole state of a stage after `resume_weights` has restored its weights.

    Args:
        context: what all stages share.
        stage: number of the stage.
        variables: state of model, optimizer and dropout.
        metrics: variables of the metrics; their values are returned, because `fit` resets them.

    Returns:
        The progress, and the values of the metrics if it is within an epoch.

    Raises:
        UserError: the state is damaged, or of another model.
    """
    workers, run = context.workers, context.run
    digest, values, stands = "", [], np.zeros(3)
    with workers.fail_together():
        if workers.is_chief:
            digest = run_digest(run)
            path = state_paths(run, stage)[0]
            progress, values = restore_checkpoint(path, variables, (stage, digest))
            stands = np.array([progress.epoch, progress.step, progress.best_rsum])
    workers.broadcast_variables(variables)
    epoch, step, best = workers.broadcast(stands).tolist()
    if not workers.is_chief:
        values = [np.zeros(v.shape, v.dtype) for v in metrics]
    values = [workers.broadcast(value) for value in values] if step else []
    return Progress(stage, int(epoch), int(step), best, digest), values
