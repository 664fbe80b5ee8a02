"""Checkpoints: variables and the progress of a stage in a file that notices when it is damaged.

Of each stage a run keeps the two newest states, to resume from, and the weights of the best epoch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.logging import logger
from tf_dpce.training.sealed_arrays import (
    DamagedCheckpoint,
    missing_checkpoint,
    open_arrays,
    write_arrays,
)

if TYPE_CHECKING:
    import keras

CHECKPOINTS_FOLDER = "checkpoints"
_KEEP = 2
_PROGRESS = "progress"
# Norms and variances square what they are taken of, in float32.
_TOO_LARGE = float(np.sqrt(np.finfo(np.float32).max))

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        stage: 1 or 2.
        epoch: finished epochs of the stage.
        step: finished steps of the next epoch.
        best_score: score of the stage's best epoch so far, see `epoch_score`; `NO_SCORE` before.
        run: digest of the options and the data that the run was started with.
    """

    stage: int
    epoch: int
    step: int
    best_score: float
    run: str = ""


def best_path(run: Path, stage: int) -> Path:
    """Returns the file of the weights of a stage's best epoch."""
    return run / CHECKPOINTS_FOLDER / f"stage{stage}-best.npz"


def state_paths(run: Path, stage: int) -> list[Path]:
    """Returns the files of a stage's states, the newest first."""
    found = (run / CHECKPOINTS_FOLDER).glob(f"stage{stage}-epoch*-step*.npz")
    return sorted(found, key=lambda path: [*map(int, re.findall(r"\d+", path.stem))], reverse=True)


def save_state(run: Path, variables: Sequence[keras.Variable], progress: Progress) -> None:
    """Writes a state to resume from, and then removes all but the two newest of its stage.

    Raises:
        UserError: a value is out of range, see `check_values`; the older states stay.
    """
    name = f"stage{progress.stage}-epoch{progress.epoch:04d}-step{progress.step:06d}.npz"
    save_checkpoint(run / CHECKPOINTS_FOLDER / name, variables, progress)
    for path in state_paths(run, progress.stage)[_KEEP:]:
        path.unlink()


def save_checkpoint(path: Path, variables: Sequence[keras.Variable], progress: Progress) -> None:
    """Writes the values of variables, in order, and the progress; atomically.

    Raises:
        UserError: a value is out of range, see `check_values`; nothing is replaced.
    """
    meta = np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)
    write_arrays(path, chain([(_PROGRESS, meta)], _checked_values(variables, progress)))


def check_values(variables: Sequence[keras.Variable], progress: Progress) -> None:
    """Reads variables as `save_checkpoint` does, and writes nothing.

    Raises:
        UserError: a value is NaN, infinite, or so large that its square would be.
    """
    for _ in _checked_values(variables, progress):
        pass


def read_progress(path: Path, owner: tuple[int, str] | None = None) -> Progress:
    """Returns the progress of a run when a checkpoint was written; reads no values.

    Args:
        path: file of the checkpoint.
        owner: stage and digest of the run that must have written it; None accepts any run.

    Raises:
        UserError: the file is missing or damaged, or another run or stage wrote it.
    """
    with open_arrays(path) as arrays:
        return _progress(path, arrays, owner)


def restore_checkpoint(
    path: Path, variables: Sequence[keras.Variable], owner: tuple[int, str] | None = None
) -> tuple[Progress, list[np.ndarray]]:
    """Assigns the first values of a checkpoint to variables.

    Args:
        path: file of the checkpoint.
        variables: variables to restore.
        owner: stage and digest of the run that must have written it; None accepts any run.

    Returns:
        The progress, and the values behind those of the variables.

    Raises:
        UserError: the file is missing or damaged, belongs to a model with other variables, or
            another run or stage wrote it. No variable has changed then.
    """
    with open_arrays(path) as arrays:
        progress = _progress(path, arrays, owner)
        names = [name for name in arrays.files if name != _PROGRESS]
        _check_variables(path, names, arrays, variables)
        for name, variable in zip(names, variables, strict=False):
            variable.assign(arrays[name])
        return progress, [arrays[name] for name in names[len(variables) :]]


def newest_readable(paths: Sequence[Path], read: Callable[[Path], _Read]) -> tuple[Path, _Read]:
    """Returns the first of some checkpoints that is not damaged, and what `read` returns of it.

    A damaged one is logged if a later one takes its place.

    Args:
        paths: checkpoints in the order of preference; at least one.
        read: function that raises `DamagedCheckpoint` if it cannot read the file.

    Raises:
        DamagedCheckpoint: all are damaged; the error names the first.
    """
    damaged: list[DamagedCheckpoint] = []
    for path in paths:
        try:
            found = read(path)
        except DamagedCheckpoint as error:
            damaged.append(error)
            continue
        for error in damaged:
            logger.warning(f"{error.path} is damaged: using the older {path.name}")
        return path, found
    raise damaged[0]


def find_checkpoint(run: Path, kind: str) -> Path:
    """Returns the checkpoint that a run is evaluated and exported with, and that others start from.

    Args:
        run: folder of the run.
        kind: "best", the best weights of the stage with the higher rsum on the validation split
            (the later stage if they are equal); or "last", the newest readable state of the latest
            stage.

    Raises:
        UserError: no stage has one yet, or all that may be taken are damaged.
    """
    if kind == "last":
        paths = next((found for n in (2, 1) if (found := state_paths(run, n))), [])
        if paths:
            return newest_readable(paths, read_progress)[0]
        raise missing_checkpoint(run / CHECKPOINTS_FOLDER)
    paths = [path for stage in (2, 1) if (path := best_path(run, stage)).exists()]
    if len(paths) == 1:
        return paths[0]
    if not paths:
        raise missing_checkpoint(best_path(run, 1))
    return max(paths, key=lambda path: read_progress(path).best_score)


def _progress(path: Path, arrays: np.lib.npyio.NpzFile, owner: tuple[int, str] | None) -> Progress:
    try:
        found = Progress(**json.loads(arrays[_PROGRESS].tobytes()))
    except TypeError:
        message = f"{path} was written by another version of tf_dpce: train again with this one"
        raise UserError("checkpoint.version", message, path) from None
    if owner is not None and (found.stage, found.run) != owner:
        raise UserError(
            "checkpoint.foreign",
            f"{path} was written by another run or stage: put this run's own file back, or train "
            "again with another --run",
            path,
        )
    return found


def _check_variables(
    path: Path,
    names: Sequence[str],
    arrays: np.lib.npyio.NpzFile,
    variables: Sequence[keras.Variable],
) -> None:
    found = [f"{name.split(' ', 1)[1]} {arrays[name].shape}" for name in names[: len(variables)]]
    wanted = [f"{_stable_path(variable)} {tuple(variable.shape)}" for variable in variables]
    if found != wanted:
        pairs = zip([*found, "nothing more"], wanted, strict=False)
        one, other = next(pair for pair in pairs if pair[0] != pair[1])
        raise UserError(
            "checkpoint.model",
            f"{path} belongs to another model: it holds {one} in the place of {other}. Give the "
            "options that the run was trained with, or put the run's own file back",
            path,
        )


def _checked_values(
    variables: Sequence[keras.Variable], progress: Progress
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the values of variables by number and path, each only as long as it is used."""
    for number, variable in enumerate(variables):
        path = _stable_path(variable)
        # If the variable's memory is the processor's, this is a view of it and no copy.
        value = np.asarray(variable.value.read_value())
        if value.dtype == np.float32 and not _is_in_range(value):
            stage, epoch = progress.stage, progress.epoch + (progress.step > 0)
            raise UserError(
                "training.diverged",
                f"{path} is out of range in stage {stage}, epoch {epoch}: train again with a "
                f"lower --stage{stage}.learning_rate",
            )
        yield f"{number:05d} {path}", value


def _is_in_range(value: np.ndarray) -> bool:
    # Not by `abs`, which takes as much memory again; NaN is neither above nor below.
    return value.size == 0 or bool(-_TOO_LARGE < value.min() and value.max() < _TOO_LARGE)


def _stable_path(variable: keras.Variable) -> str:
    """Returns a variable's path without the number of a seed generator.

    Keras counts those over the whole process, so they depend on what was built before.
    """
    return re.sub(r"seed_generator_\d+", "seed_generator", variable.path)
