"""Which exported versions a folder of models holds, and which TensorFlow wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tf_dpce.errors import UserError
from tf_dpce.export.versions import MODEL_FILE, check_name, version_numbers


def find_models(models: Path) -> dict[str, list[int]]:
    """Returns the models of a folder by name, each with its readable versions in rising order.

    Raises:
        UserError: there is none, or one whose name cannot stand in a request's path, or one
            without a readable version.
    """
    folders = sorted(models.iterdir()) if models.is_dir() else []
    found = {folder: _numbers(folder) for folder in folders if _numbers(folder)}
    if not found:
        message = f"{models} holds no model NAME/INTEGER: make one with `export`"
        raise UserError("serving.no_models", message, models)
    readable = {}
    for folder, numbers in found.items():
        check_name(folder)
        readable[folder.name] = readable_versions(folder)
        if not readable[folder.name]:
            raise unreadable(folder / str(numbers[-1]))
    return readable


def readable_versions(folder: Path) -> list[int]:
    """Returns the versions of a model that can be read, in rising order."""
    return [number for number in _numbers(folder) if _exporter(folder / str(number))]


def server_version(models: Path, names: Iterable[str]) -> str:
    """Returns the TF Serving that all versions of some models need: their newest TensorFlow.

    It looks at every version on disk, because the server loads them all, labelled or not.

    Raises:
        UserError: there is no readable version.
    """
    folders = [models / name for name in names]
    found = {_exporter(folder / str(n)) for folder in folders for n in _numbers(folder)} - {()}
    if not found:
        message = f"{models} holds no exported version: make one with `export`"
        raise UserError("serving.no_models", message, models)
    return ".".join(map(str, max(found)))


def unreadable(version: Path) -> UserError:
    """Returns the error for a version that cannot be read."""
    message = f"{version} is no exported version: export it again, put it back, or remove it"
    return UserError("serving.version", message, version)


def _numbers(folder: Path) -> list[int]:
    return version_numbers(folder) if folder.is_dir() else []


def _exporter(version: Path) -> tuple[int, ...]:
    """Returns the numbers of the TensorFlow that wrote an export, or none if it is damaged."""
    try:
        saved = SavedModel.FromString((version / MODEL_FILE).read_bytes())
        text = saved.meta_graphs[0].meta_info_def.tensorflow_version
        return tuple(map(int, re.match(r"(\d+)\.(\d+)\.(\d+)", text).groups()))
    except (OSError, DecodeError, IndexError, AttributeError):
        return ()
