"""What is said where a run's folder cannot be written to, before training and while it lasts."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from tf_dpce.errors import UserError
from tf_dpce.training.checkpoint import CHECKPOINTS_FOLDER
from tf_dpce.training.run_folder import CONFIG_FILE

_ROOM, _RIGHT = "make room there", "make the folder writable"
_REMEDIES = {
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "raise the limit of a file's size",
    errno.ENOSPC: _ROOM,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: _RIGHT,
}


def check_writable(run: Path) -> None:
    """Refuses the folder of a run that cannot be written to, or cannot be made.

    Raises:
        UserError: one of these.
    """
    nearest = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
    for folder in (nearest, run / CHECKPOINTS_FOLDER):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: choose another --run")
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(
                f"{folder} cannot be written to: make it writable, or choose another --run"
            )


@contextmanager
def told_to_resume(run: Path) -> Iterator[None]:
    """Says of a disk that fills, or can no longer be written to, how to go on.

    Args:
        run: folder of the run that is begun or trained during the block.

    Raises:
        UserError: it happened; the run's former checkpoint is whole.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise _advice(run, error.errno, error.filename) from None
    except tf.errors.OpError as error:
        # TensorBoard's writer raises TensorFlow's own errors, with the words of the system in them.
        number = next((n for n in _REMEDIES if os.strerror(n) in error.message), None)
        if number is None:
            raise
        raise _advice(run, number) from None


def _advice(run: Path, number: int, file: str | None = None) -> UserError:
    begun = (run / CONFIG_FILE).exists()
    again = "go on from the last checkpoint with --resume" if begun else "give the command again"
    what, remedy = os.strerror(number), _REMEDIES[number]
    return UserError(f"cannot write {file or run}: {what}: {remedy}, then {again}")
