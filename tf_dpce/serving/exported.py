"""What a folder of models holds: versions that can be read, and what wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tf_dpce.errors import UserError
from tf_dpce.export.versions import MODEL_FILE, check_name, version_numbers


def find_models(models: Path) -> dict[str, list[int]]:
    """Returns the exported models of a folder: by name their whole versions, rising.

    Raises:
        UserError: there is none, or one whose name cannot stand in a request's path, or one
            without a whole version.
    """
    folders = sorted(models.iterdir()) if models.is_dir() else []
    found = {folder.name: folder for folder in folders if folder.is_dir() and _numbers(folder)}
    if not found:
        raise UserError(f"{models} holds no model NAME/INTEGER: make one with `export`")
    for folder in found.values():
        check_name(folder)
    whole = {name: whole_versions(folder) for name, folder in found.items()}
    for name, numbers in whole.items():
        if not numbers:
            newest = found[name] / str(_numbers(found[name])[-1])
            raise UserError(f"{newest} is no exported version: export it again, or remove it")
    return whole


def whole_versions(folder: Path) -> list[int]:
    """Returns the versions in a model's folder that can be read, rising; of no folder, none."""
    return [number for number in _numbers(folder) if _exporter(folder / str(number))]


def server_version(models: Path, names: Iterable[str]) -> str:
    """Returns the TF Serving that all versions of some models need: their newest TensorFlow.

    It looks at every version on disk, since the server loads them all, labelled or not.

    Raises:
        UserError: there is no whole version.
    """
    folders = [models / name for name in names]
    found = {_exporter(folder / str(n)) for folder in folders for n in _numbers(folder)} - {()}
    if not found:
        raise UserError(f"{models} holds no exported version: make one with `export`")
    return ".".join(map(str, max(found)))


def _numbers(folder: Path) -> list[int]:
    return version_numbers(folder) if folder.is_dir() else []


def _exporter(version: Path) -> tuple[int, ...]:
    """Returns the numbers of the TensorFlow that wrote an export; none where it is not whole."""
    try:
        saved = SavedModel.FromString((version / MODEL_FILE).read_bytes())
        text = saved.meta_graphs[0].meta_info_def.tensorflow_version
        return tuple(map(int, re.match(r"(\d+)\.(\d+)\.(\d+)", text).groups()))
    except (OSError, DecodeError, IndexError, AttributeError):
        return ()
