"""The bundle: a folder with all that fitting needs, and in the end what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_dpce.config import Config, from_dict
from tf_dpce.errors import UserError
from tf_dpce.files import publish_file, read_json, sha256_file
from tf_dpce.training.archive import opened_arrays

CONFIG_FILE = "config.json"
START_FILE = "start.weights.h5"
FITTED_FILE = "fitted.json"
FORMAT = 1


@dataclass(frozen=True)
class Split:
    """The pictures and captions of a split, in the order of the shards.

    Attributes:
        pictures: uint8 RGB `[N, S, S, 3]`, mapped from disk. Those of training are squashed to
            squares where crops are cut from them, of which `shapes` tells the true sides.
        shapes: int32 `[N, 2]`: height and width of the pictures before.
        ids: int32 `[M, T]`, the captions, left-aligned, picture by picture.
        first: int64 `[N + 1]`: where a picture's captions begin, and the last ones end.
        instances: int64 `[N]`, of the pictures.
    """

    pictures: np.ndarray
    shapes: np.ndarray
    ids: np.ndarray
    first: np.ndarray
    instances: np.ndarray

    @property
    def caption_instances(self) -> np.ndarray:
        """The instance of each caption, int64 `[M]`."""
        return np.repeat(self.instances, np.diff(self.first))


@dataclass(frozen=True)
class Bundle:
    """A bundle, opened.

    Attributes:
        folder: of the bundle.
        saved: what its `config.json` holds: `config` and `data`, as in that of a run, and `bundle`.
    """

    folder: Path
    saved: Mapping[str, Mapping[str, Any]]

    @cached_property
    def config(self) -> Config:
        """The configuration of the run."""
        return from_dict(dict(self.saved["config"]))

    @property
    def vocabulary_size(self) -> int:
        """V, the number of words."""
        return int(self.saved["data"]["vocabulary_size"])

    @property
    def num_instances(self) -> int:
        """C, the number of training classes."""
        return int(self.saved["data"]["num_instances"])

    @property
    def stages(self) -> tuple[int, ...]:
        """The numbers of the stages that have an epoch."""
        return tuple(number for number in (1, 2) if self.config.stage(number).epochs)

    def weights_path(self, stage: int) -> Path:
        """Returns the file of a stage's best weights."""
        return self.folder / f"stage{stage}.weights.h5"

    def split(self, name: str) -> Split:
        """Opens "train" or "val".

        Raises:
            UserError: a file is missing, cut short or altered.
        """
        path = pictures_path(self.folder, name)
        with _told(path):
            pictures = np.load(path, mmap_mode="r", allow_pickle=False)
        path = captions_path(self.folder, name)
        with _told(path), opened_arrays(path) as arrays:
            return Split(pictures, **{key: arrays[key] for key in arrays.files})

    def fitted(self) -> dict[str, Any]:
        """Returns what `fit` noted down: `backend`, `device`, and `stages` by number.

        Each stage has `epoch` (of the best weights, counted from 1), their `val_rsum` and `sha256`,
        and the `pictures_per_second` of its last epoch. A stage that is missing is not fitted yet.
        """
        path = self.folder / FITTED_FILE
        return read_json(path) if path.exists() else {"stages": {}}


def pictures_path(folder: Path, split: str) -> Path:
    """Returns the file of a split's pictures."""
    return folder / f"{split}-pictures.npy"


def captions_path(folder: Path, split: str) -> Path:
    """Returns the file of a split's captions, and of what else is known of its pictures."""
    return folder / f"{split}-captions.npz"


def open_bundle(folder: Path) -> Bundle:
    """Opens what `pack` left.

    Raises:
        UserError: the folder is no bundle, or one of another version.
    """
    path = folder / CONFIG_FILE
    saved = read_json(path) if path.is_file() else {}
    if not isinstance(saved, dict) or not {"config", "data", "bundle"} <= set(saved):
        raise UserError(f"{folder} is not a bundle: give the --out of `offload pack`")
    if saved["bundle"]["format"] != FORMAT:
        raise UserError(
            f"{folder} is a bundle of format {saved['bundle']['format']}, this version takes "
            f"{FORMAT}: pack it anew"
        )
    return Bundle(folder, saved)


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights of a model in Keras's own form, atomically.

    Args:
        model: not compiled, or its optimizer would be written too.
        path: whose name ends in `.weights.h5`.
    """
    with publish_file(path) as temporary:
        # Keras insists on the end of the name.
        named = temporary.with_name(f"{temporary.name}.weights.h5")
        try:
            model.save_weights(named)
            os.replace(named, temporary)
        finally:
            named.unlink(missing_ok=True)


def load_weights(model: keras.Model, path: Path, sha256: str) -> None:
    """Reads weights that `save_weights` wrote, under this or another backend.

    Args:
        model: built from the same configuration.
        path: of the file.
        sha256: its digest.

    Raises:
        UserError: the file is missing or is another.
    """
    with _told(path):
        found = sha256_file(path)
    if found != sha256:
        raise UserError(f"{path} is damaged: its checksum is another: put a copy back")
    model.load_weights(path)


@contextmanager
def told_of_writing(folder: Path, remedy: str) -> Iterator[None]:
    """Says in one line that a disk is full, whichever library met it.

    Raises:
        UserError: something could not be written.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot write {folder}: {reason}: {remedy}") from None


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: copy the whole bundle, or pack it anew") from None
    except (EOFError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): put a copy back, or pack anew") from None


Say = Callable[[str], None]
