"""Which of the checkpoints that a run keeps is taken, and what stands in for a damaged one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import keras
import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.training.archive import Damaged
from tf_dpce.training.checkpoint import (
    ANEW,
    Progress,
    checkpoint_path,
    missing,
    needed,
    read_progress,
    restore_checkpoint,
    with_remedy,
)

LOST_BEST = (
    "put a copy back, give --checkpoint last where that can be chosen, or train anew with another "
    "--run"
)

_Read = TypeVar("_Read")


def find_checkpoint(run: Path, kind: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Returns the checkpoint that a run is judged, exported and gone on from by.

    "best" is, of the stages' best, the one with the higher rsum on the validation split (of
    equals the later one); "last" is that of the latest stage, or the one before where it is
    damaged.

    Args:
        run: its folder.
        kind: "best" or "last".
        say: called with a line where the last one is damaged.

    Raises:
        UserError: no stage has one yet, or one of them is damaged.
    """
    if kind == "last":
        found = (_first_whole(run, stage, read_progress, say) for stage in (2, 1))
        path = next((each[0] for each in found if each), None)
    else:
        paths = [checkpoint_path(run, stage, kind) for stage in (2, 1)]
        paths = [path for path in paths if path.exists()]
        alone = len(paths) == 1
        with with_remedy(LOST_BEST):
            path = max(paths, key=lambda p: alone or read_progress(p).best_rsum, default=None)
    if path is None:
        raise missing(checkpoint_path(run, 1, kind))
    return path


def has_last(run: Path, stage: int) -> bool:
    """Returns whether a stage has a checkpoint to go on from, whole or not."""
    # A kill between two renames leaves a stage without a last one for a moment.
    return any(checkpoint_path(run, stage, kind).exists() for kind in ("last", "previous"))


def latest_stage(run: Path, stages: Sequence[int]) -> int:
    """Returns the last one of some stages that has a checkpoint to go on from; 0 for none."""
    return max((stage for stage in stages if has_last(run, stage)), default=0)


def restore_best(run: Path, start: Progress, variables: Sequence[keras.Variable]) -> None:
    """Does what `restore_checkpoint` does with the best checkpoint of a stage.

    Args:
        run: folder of the run.
        start: the beginning of the stage.
        variables: to restore.

    Raises:
        UserError: it is missing, damaged, of another run or stage, or of a model with other
            variables.
    """
    path = checkpoint_path(run, start.stage, "best")
    with needed(path):
        restore_checkpoint(path, variables, start)


def restore_last(
    run: Path, start: Progress, variables: Sequence[keras.Variable], say: Callable[[str], None]
) -> tuple[Progress, list[np.ndarray]] | None:
    """Does what `restore_checkpoint` does with a stage's last checkpoint that is whole.

    Args:
        run: folder of the run.
        start: the beginning of the stage.
        variables: to restore.
        say: called with a line where the last one is damaged.

    Returns:
        The progress and the values left over, or None where the stage has no checkpoint yet.

    Raises:
        UserError: none is whole, or they are of another run or stage, or of a model with other
            variables.
    """
    found = _first_whole(
        run, start.stage, lambda path: restore_checkpoint(path, variables, start), say
    )
    if found is None:
        return None
    path, restored = found
    # The next one to be saved must not push a damaged one over it.
    os.replace(path, checkpoint_path(run, start.stage, "last"))
    return restored


def _first_whole(
    run: Path, stage: int, read: Callable[[Path], _Read], say: Callable[[str], None]
) -> tuple[Path, _Read] | None:
    """Returns the last checkpoint of a stage that can be read, and what is read of it."""
    last, previous = (checkpoint_path(run, stage, kind) for kind in ("last", "previous"))
    if not has_last(run, stage):
        return None
    if last.exists():
        try:
            return last, read(last)
        except Damaged as damage:
            if not previous.exists():
                raise UserError(f"{damage}; there is no older one: {ANEW}") from None
            say(f"{damage}: going on with the one before, {previous.name}")
    try:
        return previous, read(previous)
    except Damaged as damage:
        raise UserError(f"{damage}, and so is {last.name}: {ANEW}") from None
