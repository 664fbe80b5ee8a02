"""The whole state of a run in one file: variables by path, and where the run stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import keras
import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.training.archive import Damaged, opened_arrays, write_arrays

CHECKPOINTS_FOLDER = "checkpoints"
_META = "progress"
# Norms and variances square what they are taken of, in float32.
_LOST = float(np.sqrt(np.finfo(np.float32).max))
ANEW = "put a copy back, or train anew with another --run"
_OTHER_MODEL = "give the options that it was trained with, or put the run's own file back"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        stage: 1 or 2.
        epoch: epochs of the stage that are done.
        step: steps of the next epoch that are done.
        best_rsum: of the stage's validations so far; -1 before the first.
        run: digest of what the run was started with; empty of a run that kept none.
    """

    stage: int
    epoch: int
    step: int
    best_rsum: float
    run: str = ""


def checkpoint_path(run: Path, stage: int, kind: str) -> Path:
    """Returns the file of a stage's "best", "last" or "previous" checkpoint.

    The previous one was the last before the last; it stands in where that one is damaged.
    """
    return run / CHECKPOINTS_FOLDER / f"stage{stage}-{kind}.npz"


def read_progress(path: Path) -> Progress:
    """Returns where the run stood when a checkpoint was written.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _opened(path) as arrays:
        return _progress(arrays)


def check_own(path: Path, start: Progress) -> None:
    """Reads a checkpoint's checksum and progress, and no values.

    Args:
        path: of the file.
        start: the beginning of the stage that it must be of.

    Raises:
        UserError: the file is missing or damaged, or of another run or stage.
    """
    with needed(path):
        _check_own(path, read_progress(path), start)


@contextmanager
def needed(path: Path) -> Iterator[None]:
    """Says what to do where a checkpoint that a run cannot go on without is lost.

    Raises:
        UserError: it is missing, or proves damaged within the block.
    """
    if not path.exists():
        raise UserError(f"{path} is missing: {ANEW}")
    with with_remedy(ANEW):
        yield


@contextmanager
def with_remedy(remedy: str) -> Iterator[None]:
    """Says what to do where a checkpoint proves damaged within the block.

    Raises:
        UserError: it does.
    """
    try:
        yield
    except Damaged as damage:
        raise UserError(f"{damage}: {remedy}") from None


def save_checkpoint(
    path: Path,
    variables: Sequence[keras.Variable],
    progress: Progress,
    previous: Path | None = None,
) -> None:
    """Writes the values of variables, in order, and the progress; atomically.

    Args:
        path: of the file.
        variables: whose values.
        progress: where the run stands.
        previous: where the file that is replaced is kept, if it shall be.

    Raises:
        UserError: a value is lost, as `check_values` says it; nothing is replaced.
    """
    meta = np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)
    write_arrays(path, chain([(_META, meta)], _sound_values(variables, progress)), previous)


def check_values(variables: Sequence[keras.Variable], progress: Progress) -> None:
    """Reads variables as `save_checkpoint` does, and writes nothing.

    Args:
        variables: to read.
        progress: where the run stands.

    Raises:
        UserError: a value is NaN, infinite, or so large that its square would be.
    """
    for _ in _sound_values(variables, progress):
        pass


def _sound_values(
    variables: Sequence[keras.Variable], progress: Progress
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the values of variables by their place and path, each only as long as it is used."""
    for place, variable in enumerate(variables):
        path = _stable_path(variable)
        # Where the variable's memory is the processor's, it is seen there, and not copied.
        value = np.asarray(variable.value.read_value())
        if value.dtype == np.float32 and not _is_sound(value):
            stage, epoch = progress.stage, progress.epoch + (progress.step > 0)
            raise UserError(
                f"{path} is out of range in stage {stage}, epoch {epoch}: train anew with a "
                f"lower --stage{stage}.learning_rate"
            )
        yield f"{place:05d} {path}", value


def _is_sound(value: np.ndarray) -> bool:
    # Not by `abs`, which takes as much memory again; NaN is neither above nor below.
    return value.size == 0 or bool(-_LOST < value.min() and value.max() < _LOST)


def restore_checkpoint(
    path: Path, variables: Sequence[keras.Variable], start: Progress | None = None
) -> tuple[Progress, list[np.ndarray]]:
    """Puts the first values of a checkpoint into variables and returns the values left over.

    Args:
        path: of the file.
        variables: to restore.
        start: the beginning of the stage that it must be of; None takes that of any run.

    Raises:
        UserError: the file is missing, damaged, of a model with other variables, or of another
            run or stage.
    """
    with _opened(path) as arrays:
        progress = _progress(arrays)
        if start is not None:
            _check_own(path, progress, start)
        names = [name for name in arrays.files if name != _META]
        _check(path, names, arrays, variables)
        for name, variable in zip(names, variables, strict=False):
            variable.assign(arrays[name])
        return progress, [arrays[name] for name in names[len(variables) :]]


def missing(path: Path) -> UserError:
    """Returns what to say of a checkpoint that is not there."""
    return UserError(
        f"{path} does not exist: has the run been trained that far? Train it on with --resume, or "
        "put a copy of the file back"
    )


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Yields a checkpoint's arrays; whatever is wrong with the file becomes one line."""
    try:
        with opened_arrays(path) as arrays:
            yield arrays
    except FileNotFoundError:
        raise missing(path) from None


def _progress(arrays: np.lib.npyio.NpzFile) -> Progress:
    return Progress(**json.loads(arrays[_META].tobytes()))


def _check_own(path: Path, found: Progress, start: Progress) -> None:
    # An earlier version kept no digest: its checkpoints cannot be told apart.
    if found.stage != start.stage or found.run not in ("", start.run):
        raise UserError(
            f"{path} was written by another run or stage: put this run's own file back, or train "
            "anew with another --run"
        )


def _check(
    path: Path,
    names: Sequence[str],
    arrays: np.lib.npyio.NpzFile,
    variables: Sequence[keras.Variable],
) -> None:
    if len(names) < len(variables):
        raise UserError(
            f"{path} holds {len(names)} variables, the model {len(variables)}: {_OTHER_MODEL}"
        )
    for name, variable in zip(names, variables, strict=False):
        stored = name.split(" ", 1)[1]
        if stored != _stable_path(variable) or arrays[name].shape != tuple(variable.shape):
            raise UserError(
                f"{path} is of another model: it holds {stored} {arrays[name].shape} where "
                f"{_stable_path(variable)} {tuple(variable.shape)} belongs: {_OTHER_MODEL}"
            )


def _stable_path(variable: keras.Variable) -> str:
    """Returns a variable's path without the number of a seed generator.

    Keras counts those over the whole process, so they depend on what was built before.
    """
    return re.sub(r"seed_generator_\d+", "seed_generator", variable.path)
