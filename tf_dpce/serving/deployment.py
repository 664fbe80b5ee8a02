"""The folder from which TF Serving is run: configurations, Compose file, Kubernetes manifest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.export.versions import check_name
from tf_dpce.files import exclusive_lock, publish_bytes, remove_stale
from tf_dpce.logging import logger
from tf_dpce.serving import labels, tf_serving
from tf_dpce.serving.endpoint import MAX_REQUEST_BYTES
from tf_dpce.serving.model_folder import find_models, left_out, readable_versions, unreadable
from tf_dpce.serving.tf_serving import CONFIG_FILE, CPU_BATCHING
from tf_dpce.templates import read_template

# Each makes the file of its name.
_TEMPLATES = Path(__file__).with_name("templates")
# Compose takes a colon and a brace for the end of a path, and a dollar for a variable. YAML has no
# control characters, and UTF-8 no surrogates, which stand for bytes that are no text.
_NOT_IN_COMPOSE = re.compile("[$:{}\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def write_deployment(models: Path, folder: Path, try_newest: bool = True) -> list[Path]:
    """Writes the deployment of all models of a folder.

    Labels `stable` stay where they are; those of a new model are at its newest version. A warning
    names each folder that is left out. Every file is replaced as a whole, and `models.config` last.

    Args:
        models: the folder of the models.
        folder: the deployment, new or written before.
        try_newest: whether `canary` moves to the newest version of each model, or stays as well.

    Returns:
        The files.

    Raises:
        UserError: there is no model, or a stable version is gone and the one before it as well.
    """
    found = find_models(models)
    for line in left_out(models):
        logger.warning(line)
    folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(folder):
        before = deployed_labels(folder) if (folder / CONFIG_FILE).exists() else {}
        chosen = {
            name: labels.keep(name, before.get(name, {}), versions, try_newest)
            for name, versions in found.items()
        }
        return _write(models, folder, chosen)


def promote(models: Path, folder: Path, name: str) -> labels.Labels:
    """Makes the canary version of a model stable, and returns the model's labels.

    Raises:
        UserError: there is no such model in the deployment, or it has nothing to promote.
    """
    return _relabel(models, folder, name, labels.promote)


def rollback(models: Path, folder: Path, name: str) -> labels.Labels:
    """Makes the version before stable again, and returns the model's labels.

    Raises:
        UserError: there is no such model in the deployment, or no version before.
    """
    return _relabel(models, folder, name, labels.roll_back)


def deployed_labels(folder: Path) -> dict[str, labels.Labels]:
    """Returns the labels of each model of a deployment.

    Raises:
        UserError: there is no deployment, it cannot be read, or a model has no label `stable`.
    """
    found, path = {}, folder / CONFIG_FILE
    for model in labels.read_config(path).model_config_list.config:
        found[model.name] = dict(model.version_labels)
        if labels.STABLE not in found[model.name]:
            raise UserError(
                "serving.no_stable_label",
                f"{path} gives {model.name} no label {labels.STABLE}: remove the file, and "
                "`serve --write` begins with the newest version",
                path,
            )
    return found


def server_version(models: Path, names: Iterable[str]) -> str:
    """Returns the TF Serving that all versions of some models need: their newest TensorFlow.

    It looks at every version on disk, because the server loads them all, labelled or not.

    Args:
        models: the folder of the models.
        names: names of models, of which one has a readable version.
    """
    versions = [readable_versions(models / name).values() for name in names]
    return ".".join(map(str, max(max(found) for found in versions if found)))


def _relabel(
    models: Path, folder: Path, name: str, change: Callable[[str, labels.Labels], labels.Labels]
) -> labels.Labels:
    if not folder.is_dir():
        message = f"{folder} does not exist: make it with `serve --write`"
        raise UserError("serving.no_deployment", message, folder)
    with _exclusive(folder):
        before = deployed_labels(folder)
        if name not in before:
            message = f"{folder} has no model {name!r}: it has {', '.join(before)}"
            raise UserError("serving.unknown_model", message, folder)
        moved, versions = change(name, before[name]), readable_versions(models / name)
        if moved[labels.STABLE] not in versions:
            raise unreadable(models / name / str(moved[labels.STABLE]))
        # The labels of other models do not move, so it is no matter where they are.
        chosen = {**before, name: labels.drop_missing(moved, list(versions))}
        _write(models, folder, chosen)
    return chosen[name]


def _write(models: Path, folder: Path, chosen: dict[str, labels.Labels]) -> list[Path]:
    for name in chosen:
        check_name(models / name)
    texts = _texts(models.resolve(), chosen)
    for name, text in texts.items():
        publish_bytes(folder / name, text.encode())
    return [folder / name for name in sorted(texts)]


def _texts(models: Path, chosen: dict[str, labels.Labels]) -> dict[str, str]:
    """Returns the texts of a deployment by the names of its files."""
    if _NOT_IN_COMPOSE.search(str(models)):
        raise UserError(
            "serving.path",
            f"{str(models)!r} has a character that Compose cannot take, $ : {{ }} or a control "
            "character: move the models",
            models,
        )
    values = {
        "bytes": MAX_REQUEST_BYTES,
        "cores": tf_serving.CORES,
        "models": models,
        "version": server_version(models, chosen),
        "health": tf_serving.health_command(sorted(chosen)),
        "flags": tf_serving.server_flags(tf_serving.DEPLOYMENT),
        "batching": tf_serving.batching_flags(
            tf_serving.DEPLOYMENT, f"${{BATCHING:-{CPU_BATCHING}}}"
        ),
        "models_config": labels.config_text(chosen, tf_serving.MODELS),
    }

    def filled(name: str, gpu: bool = False) -> str:
        return read_template(__package__, f"templates/{name}").render(values, gpu=gpu)

    return {
        **{path.name: filled(path.name) for path in _TEMPLATES.iterdir()},
        "kubernetes.gpu.yaml": filled("kubernetes.yaml", gpu=True),
        tf_serving.HOST_CONFIG_FILE: labels.config_text(chosen, models),
        # The last, and the one that is read back: a command that was killed before can be repeated.
        CONFIG_FILE: values["models_config"],
    }


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    with exclusive_lock(folder):
        for written in (folder, (folder / tf_serving.HOST_CONFIG_FILE).parent):
            remove_stale(written)
        yield
