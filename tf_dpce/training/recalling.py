"""Weights that the chief reads from the files of runs, given to all workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.checkpoint import (
    Progress,
    check_own,
    checkpoint_path,
    restore_checkpoint,
    with_remedy,
)
from tf_dpce.training.distributed import Workers
from tf_dpce.training.kept import LOST_BEST, find_checkpoint, restore_best, restore_last
from tf_dpce.training.run_folder import run_digest


def start_from(workers: Workers, model: DualPath, origin: Path | None) -> None:
    """Gives a model the best weights of another run; without one, those that the chief's has.

    Raises:
        UserError: that run has none, or they are damaged or of another model.
    """
    with workers.fail_together():
        if workers.is_chief and origin:
            path = find_checkpoint(origin, "best")
            with with_remedy(LOST_BEST):
                restore_checkpoint(path, model.variables)
    workers.broadcast_variables(model.variables)


def recall_best(workers: Workers, model: DualPath, run: Path, stage: int) -> None:
    """Gives a model the best weights of a stage of its run.

    Raises:
        UserError: they are missing or damaged, or of another run or stage.
    """
    with workers.fail_together():
        if workers.is_chief:
            restore_best(run, _beginning(run, stage), model.variables)
    workers.broadcast_variables(model.variables)


def recall_last(
    workers: Workers,
    model: DualPath,
    run: Path,
    stages: Sequence[int],
    stage: int,
    say: Callable[[str], None],
) -> int:
    """Gives a model the weights of a stage's last checkpoint and returns its epochs that are done.

    Args:
        workers: that train.
        model: the whole model.
        run: its folder.
        stages: that are trained.
        stage: the one of them that the run stands in.
        say: called with a line where the last one is damaged.

    Raises:
        UserError: none is whole, or they are of another run or stage; or the best weights of an
            earlier stage are, by which the run might be judged at its end.
    """
    done = 0
    with workers.fail_together():
        if workers.is_chief:
            for earlier in (n for n in stages if n < stage):
                path = checkpoint_path(run, earlier, "best")
                if path.exists():
                    check_own(path, _beginning(run, earlier))
            restored = restore_last(run, _beginning(run, stage), model.variables, say)
            done = restored[0].epoch if restored else 0
    workers.broadcast_variables(model.variables)
    return int(workers.broadcast(np.array([done], np.int32))[0])


def _beginning(run: Path, stage: int) -> Progress:
    return Progress(stage, 0, 0, -1.0, run_digest(run))
