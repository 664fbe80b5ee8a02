"""Versions of an exported model: NAME/1, NAME/2, ... as TF Serving looks for them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from tf_dpce.config import CONFIG_FILE
from tf_dpce.errors import UserError
from tf_dpce.files import flush, remove_stale, sha256_files, temporary_folder

MODEL_FILE = "saved_model.pb"

# TF Serving counts in int64.
LARGEST_NUMBER = 2**63 - 1

_NAME = re.compile(r"(?!\.\.$)[\w.-]+", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)


def is_run(folder: Path) -> bool:
    """Returns whether a folder is that of a run, which is no exported model."""
    return (folder / CONFIG_FILE).is_file()


def check_name(folder: Path) -> None:
    """Refuses a model's folder whose name cannot stand in a request's path.

    Raises:
        UserError: if it cannot.
    """
    if not _NAME.fullmatch(folder.name):
        message = f"{folder}: name a model by letters, digits and - _ . alone"
        raise UserError("export.name", message, folder)


def version_numbers(folder: Path) -> list[int]:
    """Returns the versions in a model's folder, rising; none if there is no such folder.

    Files are passed over, and so are numbers that are not written as `export` writes them.
    """
    if not folder.is_dir():
        return []
    return sorted(
        number
        for number in _numbers(folder)
        if (folder / str(number)).is_dir() and number <= LARGEST_NUMBER
    )


def find_version(path: Path) -> Path:
    """Returns the folder of a version, given that or the model's folder (the newest one).

    Raises:
        UserError: if there is no exported model.
    """
    if (path / MODEL_FILE).is_file():
        return path
    numbers = version_numbers(path)
    newest = path / str(numbers[-1]) if numbers else path
    if not (newest / MODEL_FILE).is_file():
        message = f"{newest} holds no exported model: make one with `export`"
        raise UserError("export.missing", message, newest)
    return newest


def version_digest(version: Path) -> str:
    """Returns a SHA-256 of everything that decides the embeddings of an exported version.

    These are the graph, the variables and the assets of its SavedModel.
    """
    parts = [*(version / "variables").rglob("*"), *(version / "assets").rglob("*")]
    files = sorted(part for part in parts if part.is_file())
    return sha256_files(version, [version / MODEL_FILE, *files])


def publish_version(folder: Path, write: Callable[[Path], None]) -> Path:
    """Publishes the next version of a model: whole, or not at all.

    The version is written aside in the model's folder, under a name that TF Serving skips, and
    then renamed. Several processes may publish at once; each gets a number of its own. What
    processes that were killed left aside is removed.

    Args:
        folder: of the model, NAME.
        write: fills the empty folder that it is given; the version exists only if it returns.

    Returns:
        The folder of the new version, NAME/INTEGER.

    Raises:
        UserError: if there is no larger number.
    """
    remove_stale(folder)
    with temporary_folder(folder / "export") as aside:
        write(aside)
        for item in (*aside.rglob("*"), aside):
            flush(item)
        # Until it has its number, it would else be taken for one that was left.
        return _rename_to_next(aside, folder)


def _rename_to_next(aside: Path, folder: Path) -> Path:
    while True:
        # Whatever has a number takes it: TF Serving reads 007 as 7.
        taken = [number for number in _numbers(folder) if number <= LARGEST_NUMBER]
        number = max(taken, default=0) + 1
        if number > LARGEST_NUMBER:
            message = f"{folder} has the largest version there can be: export to another folder"
            raise UserError("export.largest_version", message, folder)
        target = folder / str(number)
        try:
            # A folder that is not empty is never replaced: another process was faster.
            os.rename(aside, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            flush(folder)
            return target


def _numbers(folder: Path) -> list[int]:
    return [int(item.name) for item in folder.iterdir() if _DIGITS.fullmatch(item.name)]
