"""`models.config`, TF Serving's list of models with their labels: which version answers whom.

`stable` is for everybody, `canary` for those who try what is new. A third label, `previous`, stays
at the version that was stable before, for a rollback. Labels that somebody else wrote stay where
they are.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tf_dpce.errors import UserError

STABLE = "stable"
CANARY = "canary"
PREVIOUS = "previous"

# The labels of a model, each with the version that carries it.
Labels = dict[str, int]


def read_config(path: Path) -> ModelServerConfig:
    """Returns what a `models.config` holds.

    Raises:
        UserError: there is none, or it cannot be parsed.
    """
    try:
        return text_format.Parse(path.read_text(), ModelServerConfig())
    except FileNotFoundError:
        message = f"{path} does not exist: make it with `serve --write`"
        raise UserError("serving.no_deployment", message, path) from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        message = f"{path} is no models.config ({error}): write it again"
        raise UserError("serving.config", message, path) from None


def config_text(labels: dict[str, Labels], root: Path | str) -> str:
    """Composes a `models.config`.

    Every version on disk is loaded: TF Serving moves a label only to a version that answers, so
    what may be labelled next has to be there before.

    Args:
        labels: the labels of each model, by its name.
        root: the folder of the models, where the server sees it.
    """
    config = ModelServerConfig()
    for name, versions in sorted(labels.items()):
        model = config.model_config_list.config.add(
            name=name, base_path=f"{root}/{name}", model_platform="tensorflow"
        )
        model.model_version_policy.all.SetInParent()
        model.version_labels.update(versions)
    return text_format.MessageToString(config)


def drop_missing(labels: Labels, versions: list[int]) -> Labels:
    """Returns a model's labels without those whose version is gone.

    TF Serving refuses to move a label there. `stable` falls back to `previous`, and `canary` to
    `stable`.

    Args:
        labels: the model's labels.
        versions: versions that can be served.
    """
    left = {label: number for label, number in labels.items() if number in versions}
    if STABLE not in left and PREVIOUS in left:
        left[STABLE] = left.pop(PREVIOUS)
    if STABLE in left:
        left.setdefault(CANARY, left[STABLE])
    return left


def keep(name: str, labels: Labels, versions: list[int], try_newest: bool) -> Labels:
    """Returns a model's labels when its deployment is written again.

    Args:
        name: name of the model.
        labels: its labels so far; a new model has none, and gets them at its newest version.
        versions: versions that can be served, in rising order.
        try_newest: whether `canary` moves to the newest version.

    Raises:
        UserError: the stable version is gone from the disk, and so is the one before.
    """
    left = drop_missing(labels or {STABLE: versions[-1]}, versions)
    if STABLE not in left:
        raise UserError(
            "serving.stable_gone",
            f"version {labels[STABLE]} of {name} is stable, but is gone from the disk or damaged: "
            "put it back, or remove models.config to begin with the newest version",
        )
    return {**left, CANARY: versions[-1]} if try_newest else left


def promote(name: str, labels: Labels) -> Labels:
    """Returns a model's labels after its canary version has become stable.

    Raises:
        UserError: it is stable already.
    """
    stable, canary = labels[STABLE], labels.get(CANARY, labels[STABLE])
    if stable == canary:
        raise UserError(
            "serving.nothing_to_promote",
            f"{name} has nothing to promote, version {stable} is stable and canary: publish a new "
            "one, then run `serve --write` again",
        )
    return {**labels, STABLE: canary, PREVIOUS: stable}


def roll_back(name: str, labels: Labels) -> Labels:
    """Returns a model's labels after the version before has become stable again.

    `canary` goes back with `stable`, so that nobody stays on the bad version, unless it is at
    another version already.

    Raises:
        UserError: there is no version before.
    """
    if PREVIOUS not in labels:
        message = f"{name} has no version to go back to: {labels[STABLE]} is the first stable"
        raise UserError("serving.no_previous", message)
    left = {label: number for label, number in labels.items() if label != PREVIOUS}
    if left.get(CANARY, left[STABLE]) == left[STABLE]:
        left[CANARY] = labels[PREVIOUS]
    return {**left, STABLE: labels[PREVIOUS]}
