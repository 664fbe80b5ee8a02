"""A folder of models: the versions that a server can load, and what resembles one but is none."""

from __future__ import annotations

import re
from pathlib import Path

from tf_dpce.errors import UserError, shorten
from tf_dpce.export import Differs
from tf_dpce.export.operations import read_meta_graph
from tf_dpce.export.versions import LARGEST_NUMBER, check_name, version_numbers
from tf_dpce.files import is_temporary

# TF Serving tries to load whatever has a number for its name, six times within 5 minutes. A server
# that starts opens its ports only then.
_REMOVE = "remove it, or a server that starts waits 5 minutes for it"


def find_models(models: Path) -> dict[str, list[int]]:
    """Returns the models of a folder by name, each with its readable versions in rising order.

    Raises:
        UserError: there is none, or one whose name cannot stand in a request's path, or one
            without a readable version.
    """
    readable = {}
    for folder in sorted(models.iterdir()) if models.is_dir() else []:
        if numbers := version_numbers(folder):
            check_name(folder)
            readable[folder.name] = list(readable_versions(folder))
            if not readable[folder.name]:
                raise unreadable(folder / str(numbers[-1]))
    if not readable:
        message = f"{models} holds no model NAME/INTEGER: make one with `export`"
        raise UserError("serving.no_models", message, models)
    return readable


def readable_versions(folder: Path) -> dict[int, tuple[int, ...]]:
    """Returns the versions of a model that can be read, in rising order.

    Each comes with the numbers of the TensorFlow that wrote it.
    """
    found = {}
    for number in version_numbers(folder):
        version = folder / str(number)
        try:
            graph = read_meta_graph(version)
            text = graph.meta_info_def.tensorflow_version
            numbers = tuple(map(int, re.match(r"(\d+)\.(\d+)\.(\d+)", text).groups()))
        except (OSError, Differs, AttributeError):
            continue
        has_variables = graph.saver_def.restore_op_name
        if not has_variables or (version / "variables" / "variables.index").is_file():
            found[number] = numbers
    return found


def unreadable(version: Path) -> UserError:
    """Returns the error for a version that cannot be read."""
    message = f"{version} is no exported version: export it again, put it back, or remove it"
    return UserError("serving.version", message, version)


def left_out(models: Path) -> list[str]:
    """Returns a line for each item that may be meant as a version, but gets no label.

    Args:
        models: the folder of the models.
    """
    lines = []
    for folder in filter(Path.is_dir, _items(models)):
        if not (numbers := version_numbers(folder)):
            lines.append(f"left out: {shorten(folder.name)} (no NAME/INTEGER)")
            continue
        versions, readable = set(map(str, numbers)), set(map(str, readable_versions(folder)))
        for version in _items(folder):
            tried = _is_number(version.name)
            if version.name not in readable and (tried or version.is_dir()):
                plain = version.name in versions or not version.is_dir()
                fault = "it cannot be loaded" if plain else "no plain number"
                name = shorten(f"{folder.name}/{version.name}")
                lines.append(f"left out: {name} ({fault})" + (f": {_REMOVE}" if tried else ""))
    return lines


def _items(folder: Path) -> list[Path]:
    """Returns what is in a folder, without hidden items and those of an export in progress."""
    return [
        item
        for item in sorted(folder.iterdir())
        if not item.name.startswith(".") and not is_temporary(item.name)
    ]


def _is_number(name: str) -> bool:
    """Returns whether TF Serving takes a name for a version; 007 is 7."""
    return bool(re.fullmatch(r"\d+", name, re.ASCII)) and int(name) <= LARGEST_NUMBER
