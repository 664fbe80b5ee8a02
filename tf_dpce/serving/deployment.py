"""The folder from which TF Serving is run: configurations, Compose file, Kubernetes manifest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tf_dpce.errors import UserError
from tf_dpce.export.versions import MODEL_FILE, version_numbers
from tf_dpce.files import publish_file, remove_stale, sole_writer
from tf_dpce.serving import labels, manifests, settings
from tf_dpce.serving.model_config import Labels, config_labels, config_text, read_config
from tf_dpce.serving.settings import CONFIG_FILE

# The same list of models with the paths of this machine, for a server without a container.
HOST_CONFIG_FILE = f"host/{CONFIG_FILE}"

_NAME = re.compile(r"[\w.-]+", re.ASCII)


def find_models(models: Path) -> dict[str, list[int]]:
    """Returns the exported models of a folder: by name their versions, rising.

    Raises:
        UserError: there is none, or one whose name cannot stand in a request's path.
    """
    folders = sorted(models.iterdir()) if models.is_dir() else []
    versions = {folder.name: version_numbers(folder) for folder in folders if folder.is_dir()}
    found = {name: numbers for name, numbers in versions.items() if numbers}
    if not found:
        raise UserError(f"{models} holds no model NAME/INTEGER: make one with `export`")
    for name in found:
        if not _NAME.fullmatch(name):
            raise UserError(f"{models / name}: name a model by letters, digits and - _ . alone")
    return found


def server_version(models: Path, chosen: Labels) -> str:
    """Returns the TF Serving that every labelled version needs: its exporter's TensorFlow.

    Raises:
        UserError: an export cannot be read.
    """
    exporters = {
        _exporter(models / name / str(number))
        for name, numbers in chosen.items()
        for number in numbers.values()
    }
    return ".".join(map(str, max(exporters)))


def write_deployment(models: Path, folder: Path) -> list[Path]:
    """Writes the deployment of all models of a folder, with their newest versions as `canary`.

    What is stable stays so; a model that is new here is stable in its newest version. Every file
    is replaced whole, and `models.config` last.

    Args:
        models: the folder of the models.
        folder: the deployment, new or written before.

    Returns:
        The files.

    Raises:
        UserError: there is no model, or a stable version is gone.
    """
    found = find_models(models)
    folder.mkdir(parents=True, exist_ok=True)
    with _sole(folder):
        before = deployed_labels(folder) if (folder / CONFIG_FILE).exists() else {}
        return _write(
            models,
            folder,
            {
                name: labels.tried(name, before.get(name, {}), numbers)
                for name, numbers in found.items()
            },
        )


def promote(models: Path, folder: Path, name: str) -> dict[str, int]:
    """Makes what is tried of a model stable, and returns its labels.

    Raises:
        UserError: there is no such model in the deployment, or it has nothing to promote.
    """
    return _relabel(models, folder, name, labels.promoted)


def rollback(models: Path, folder: Path, name: str) -> dict[str, int]:
    """Makes the version before stable again, and returns the model's labels.

    Raises:
        UserError: there is no such model in the deployment, or no version before.
    """
    return _relabel(models, folder, name, labels.rolled_back)


def deployed_labels(folder: Path) -> Labels:
    """Returns the labels of each model of a deployment.

    Raises:
        UserError: there is no deployment, or it cannot be read.
    """
    return config_labels(read_config(folder / CONFIG_FILE))


def _relabel(
    models: Path, folder: Path, name: str, change: Callable[[str, dict[str, int]], dict[str, int]]
) -> dict[str, int]:
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: make it with `serve --write`")
    with _sole(folder):
        chosen = deployed_labels(folder)
        if name not in chosen:
            raise UserError(f"{folder} has no model {name}: it has {', '.join(chosen)}")
        chosen[name] = change(name, chosen[name])
        stable = models / name / str(chosen[name][labels.STABLE])
        if not (stable / MODEL_FILE).is_file():
            raise UserError(f"{stable} is no exported version: put it back")
        _write(models, folder, chosen)
    return chosen[name]


def _write(models: Path, folder: Path, chosen: Labels) -> list[Path]:
    names, version = sorted(chosen), server_version(models, chosen)
    texts = {
        **settings.BATCHING,
        settings.MONITORING_FILE: settings.MONITORING,
        manifests.PROMETHEUS_FILE: manifests.prometheus_file(),
        "compose.yaml": manifests.compose_file(names, version, models.resolve()),
        "compose.gpu.yaml": manifests.compose_gpu_file(version),
        HOST_CONFIG_FILE: config_text(chosen, models.resolve()),
        # The last is the one that is read back: a command that was killed before can be repeated.
        CONFIG_FILE: config_text(chosen, manifests.MODELS),
    }
    kubernetes = manifests.kubernetes_file(names, version, texts)
    for name, text in {"kubernetes.yaml": kubernetes, **texts}.items():
        with publish_file(folder / name) as temporary:
            temporary.write_text(text)
    return [folder / name for name in sorted([*texts, "kubernetes.yaml"])]


@contextmanager
def _sole(folder: Path) -> Iterator[None]:
    with sole_writer(folder):
        for written in (folder, (folder / HOST_CONFIG_FILE).parent):
            remove_stale(written)
        yield


def _exporter(version: Path) -> tuple[int, ...]:
    """Returns the numbers of the TensorFlow that wrote an export."""
    try:
        saved = SavedModel.FromString((version / MODEL_FILE).read_bytes())
        text = saved.meta_graphs[0].meta_info_def.tensorflow_version
        return tuple(map(int, re.match(r"(\d+)\.(\d+)\.(\d+)", text).groups()))
    except (OSError, DecodeError, IndexError, AttributeError):
        raise UserError(f"{version} is no exported version: export it again") from None
