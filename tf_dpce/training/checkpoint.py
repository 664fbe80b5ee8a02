"""The whole state of a run in one file: variables by path, and where the run stands."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.files import publish_file

CHECKPOINTS_FOLDER = "checkpoints"
_META = "progress"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        stage: 1 or 2.
        epoch: epochs of the stage that are done.
        step: steps of the next epoch that are done.
        best_rsum: of the stage's validations so far; -1 before the first.
    """

    stage: int
    epoch: int
    step: int
    best_rsum: float


def checkpoint_path(run: Path, stage: int, kind: str) -> Path:
    """Returns the file of a stage's "best" or "last" checkpoint."""
    return run / CHECKPOINTS_FOLDER / f"stage{stage}-{kind}.npz"


def find_checkpoint(run: Path, kind: str) -> Path:
    """Returns the checkpoint that a run is judged, exported and gone on from by.

    "best" is, of the stages' best, the one with the higher rsum on the validation split (of
    equals the later one); "last" is that of the latest stage.

    Raises:
        UserError: no stage has one yet, or one of them is damaged.
    """
    found = [p for stage in (2, 1) if (p := checkpoint_path(run, stage, kind)).exists()]
    if not found:
        raise _missing(checkpoint_path(run, 1, kind))
    if kind == "last" or len(found) == 1:
        return found[0]
    return max(found, key=lambda path: read_progress(path).best_rsum)


def read_progress(path: Path) -> Progress:
    """Returns where the run stood when a checkpoint was written.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _opened(path) as arrays:
        return _progress(arrays)


def save_checkpoint(path: Path, variables: Sequence[keras.Variable], progress: Progress) -> None:
    """Writes the values of variables, in order, and the progress; atomically."""
    arrays = {f"{place:05d} {_stable_path(v)}": v.numpy() for place, v in enumerate(variables)}
    meta = np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)
    with publish_file(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **{_META: meta}, **arrays)


def restore_checkpoint(
    path: Path, variables: Sequence[keras.Variable]
) -> tuple[Progress, list[np.ndarray]]:
    """Puts the first values of a checkpoint into variables and returns the values left over.

    Raises:
        UserError: the file is missing, damaged, or of a model with other variables.
    """
    with _opened(path) as arrays:
        progress = _progress(arrays)
        names = [name for name in arrays.files if name != _META]
        _check(path, names, arrays, variables)
        for name, variable in zip(names, variables, strict=False):
            variable.assign(arrays[name])
        return progress, [arrays[name] for name in names[len(variables) :]]


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Yields a checkpoint's arrays; whatever is wrong with the file becomes one line."""
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            yield arrays
    except FileNotFoundError:
        raise _missing(path) from None
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _missing(path: Path) -> UserError:
    return UserError(f"{path} does not exist: has the run been trained that far?")


def _progress(arrays: np.lib.npyio.NpzFile) -> Progress:
    return Progress(**json.loads(arrays[_META].tobytes()))


def _check(
    path: Path,
    names: Sequence[str],
    arrays: np.lib.npyio.NpzFile,
    variables: Sequence[keras.Variable],
) -> None:
    if len(names) < len(variables):
        raise UserError(f"{path} holds {len(names)} variables, the model {len(variables)}")
    for name, variable in zip(names, variables, strict=False):
        stored = name.split(" ", 1)[1]
        if stored != _stable_path(variable) or arrays[name].shape != tuple(variable.shape):
            raise UserError(
                f"{path} is of another model: it holds {stored} {arrays[name].shape} where "
                f"{_stable_path(variable)} {tuple(variable.shape)} belongs"
            )


def _stable_path(variable: keras.Variable) -> str:
    """Returns a variable's path without the number of a seed generator.

    Keras counts those over the whole process, so they depend on what was built before.
    """
    return re.sub(r"seed_generator_\d+", "seed_generator", variable.path)
