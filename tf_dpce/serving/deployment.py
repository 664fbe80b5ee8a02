"""The folder from which TF Serving is run: configurations, Compose file, Kubernetes manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.export.versions import version_numbers
from tf_dpce.files import publish_file, remove_stale, sole_writer
from tf_dpce.serving import labels, manifests, settings
from tf_dpce.serving.exported import find_models, server_version, whole_versions
from tf_dpce.serving.kubernetes import kubernetes_file
from tf_dpce.serving.model_config import Labels, config_labels, config_text, read_config
from tf_dpce.serving.settings import CONFIG_FILE

# For a server without a container: the paths of this machine, and all its cores.
HOST_CONFIG_FILE = f"host/{CONFIG_FILE}"
HOST_BATCHING_FILE = f"host/{settings.CPU_BATCHING}"


def write_deployment(models: Path, folder: Path, try_newest: bool = True) -> list[Path]:
    """Writes the deployment of all models of a folder.

    What is stable stays so; a model that is new here is stable in its newest version. Every file
    is replaced whole, and `models.config` last.

    Args:
        models: the folder of the models.
        folder: the deployment, new or written before.
        try_newest: moves `canary` to the newest version of each model; else it stays as well.

    Returns:
        The files.

    Raises:
        UserError: there is no model, or a stable version is gone and the one before it as well.
    """
    found = find_models(models)
    folder.mkdir(parents=True, exist_ok=True)
    with _sole(folder):
        before = deployed_labels(folder) if (folder / CONFIG_FILE).exists() else {}
        for name in found:
            if before.get(name):
                _check_stable(folder, name, before[name])
        change = labels.tried if try_newest else labels.begun
        chosen = {name: change(name, before.get(name, {}), found[name]) for name in found}
        return _write(models, folder, chosen)


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
        before = deployed_labels(folder)
        if name not in before:
            raise UserError(f"{folder} has no model {name!r}: it has {', '.join(before)}")
        _check_stable(folder, name, before[name])
        moved = change(name, {labels.CANARY: before[name][labels.STABLE], **before[name]})
        whole = whole_versions(models / name)
        if moved[labels.STABLE] not in whole:
            stable = models / name / str(moved[labels.STABLE])
            raise UserError(f"{stable} is no exported version: put it back")
        others = {other: _other(models / other, before[other]) for other in before}
        chosen = {**others, name: labels.settled(moved, whole)}
        _write(models, folder, chosen)
    return chosen[name]


def _check_stable(folder: Path, name: str, found: dict[str, int]) -> None:
    if labels.STABLE not in found:
        raise UserError(
            f"{folder / CONFIG_FILE} gives {name} no label {labels.STABLE}: remove the file, and "
            "`serve --write` begins with the newest version"
        )


def _other(folder: Path, found: dict[str, int]) -> dict[str, int]:
    """Returns the labels of a model that is not to be moved, fit for a server to take over.

    A folder that is away as a whole, and a stable version that is damaged, may still be in the
    memory of the server: these are left to it.
    """
    numbers = version_numbers(folder) if folder.is_dir() else []
    stable = {found.get(labels.STABLE)} & set(numbers)
    return labels.settled(found, [*whole_versions(folder), *stable]) if numbers else found


def _write(models: Path, folder: Path, chosen: Labels) -> list[Path]:
    names, version = sorted(chosen), server_version(models, chosen)
    texts = {
        **settings.BATCHING,
        settings.MONITORING_FILE: settings.MONITORING,
        manifests.PROMETHEUS_FILE: manifests.prometheus_file(),
        "compose.yaml": manifests.compose_file(names, version, models.resolve()),
        "compose.gpu.yaml": manifests.compose_gpu_file(version),
        HOST_BATCHING_FILE: settings.HOST_BATCHING,
        HOST_CONFIG_FILE: config_text(chosen, models.resolve()),
        # The last is the one that is read back: a command that was killed before can be repeated.
        CONFIG_FILE: config_text(chosen, manifests.MODELS),
    }
    clusters = {
        "kubernetes.yaml": kubernetes_file(names, version, texts),
        "kubernetes.gpu.yaml": kubernetes_file(names, version, texts, gpu=True),
    }
    for name, text in {**clusters, **texts}.items():
        with publish_file(folder / name) as temporary:
            temporary.write_text(text)
    return [folder / name for name in sorted([*clusters, *texts])]


@contextmanager
def _sole(folder: Path) -> Iterator[None]:
    with sole_writer(folder):
        for written in (folder, (folder / HOST_CONFIG_FILE).parent):
            remove_stale(written)
        yield
