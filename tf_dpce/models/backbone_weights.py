"""Reads the weights of a backbone from a file: NumPy arrays by name, or what Keras saved."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np

from tf_dpce.errors import UserError, shorten
from tf_dpce.files import UNREADABLE_ARCHIVE

# Arrays of the published networks that a backbone, which ends before them, has no use for.
_CLASSIFIER = "classifier/"


def load_weights(network: keras.Model, path: Path, backbone: str) -> None:
    """Gives a network the weights of a file.

    A `.npz` holds an array LAYER/KIND for every variable: `kernel` and `bias` of convolutions;
    `gamma`, `beta`, `mean` and `variance` of BatchNorm. Any other file is read by Keras.

    Args:
        network: The network of the backbone.
        path: The file.
        backbone: The name of the backbone, for messages.

    Raises:
        UserError: The file cannot be read, or holds the weights of another network.
    """
    if path.suffix.lower() == ".npz":
        _assign(network, _read_arrays(path, backbone), path, backbone)
        return
    try:
        with warnings.catch_warnings():
            # Keras may only warn of layers that it cannot load, and would leave them random. Lists,
            # which it warns of as well, hold no weights here.
            warnings.filterwarnings("error", "A total of", UserWarning)
            warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
            network.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise _misfit(path, backbone, shorten(reason, 200)) from error


def _read_arrays(path: Path, backbone: str) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names = [name for name in archive.files if not name.startswith(_CLASSIFIER)]
            return {name: archive[name] for name in names}
    except (*UNREADABLE_ARCHIVE, AttributeError) as error:
        raise _misfit(
            path, backbone, f"it is no .npz that can be read: {shorten(str(error))}"
        ) from None


def _assign(network: keras.Model, arrays: dict[str, np.ndarray], path: Path, backbone: str) -> None:
    variables = {
        f"{layer.name}/{variable.name.removeprefix('moving_')}": variable
        for layer in network.layers
        for variable in layer.weights
    }
    missing, unknown = variables.keys() - arrays.keys(), arrays.keys() - variables.keys()
    for names, what in ((missing, "it lacks"), (unknown, "the network has no")):
        if names:
            raise _misfit(path, backbone, f"{what} {shorten(min(names))} ({len(names)} such)")
    for name, variable in variables.items():
        values, shape = arrays[name], tuple(variable.shape)
        if values.shape != shape or values.dtype.kind != "f":
            found = f"{name} is {values.dtype} {values.shape} in place of floats {shape}"
            raise _misfit(path, backbone, found)
        if not np.isfinite(values).all():
            raise _misfit(path, backbone, f"{name} has a number that is not finite")
    # After all checks, so that a network has all weights of a file or none.
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _misfit(path: Path, backbone: str, reason: str) -> UserError:
    return UserError("model.weights", f"weights {path} do not fit {backbone}: {reason}", path)
