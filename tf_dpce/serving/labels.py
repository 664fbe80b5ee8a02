"""Which version answers whom: `stable` everybody, `canary` those who try what is new.

A third label, `previous`, stays at the version that was stable before, for a rollback. Labels that
somebody else wrote stay where they are. No label stays on a version that is gone: TF Serving
refuses to move a label there.
"""

from __future__ import annotations

from tf_dpce.errors import UserError

STABLE = "stable"
CANARY = "canary"
PREVIOUS = "previous"


def drop_missing(labels: dict[str, int], versions: list[int]) -> dict[str, int]:
    """Returns a model's labels without those whose version is gone.

    `stable` falls back to `previous`, and `canary` to `stable`.

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


def keep(name: str, labels: dict[str, int], versions: list[int]) -> dict[str, int]:
    """Returns a model's labels as they are; a new model gets them at its newest version.

    Args:
        name: name of the model.
        labels: its labels so far; a new model has none.
        versions: versions that can be served, in rising order.

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
    return left


def try_newest(name: str, labels: dict[str, int], versions: list[int]) -> dict[str, int]:
    """Returns a model's labels with `canary` at its newest version.

    Arguments and errors are those of `keep`.
    """
    return {**keep(name, labels, versions), CANARY: versions[-1]}


def promote(name: str, labels: dict[str, int]) -> dict[str, int]:
    """Returns a model's labels after its canary version has become stable.

    Raises:
        UserError: it is stable already.
    """
    stable, canary = labels[STABLE], labels[CANARY]
    if stable == canary:
        raise UserError(
            "serving.nothing_to_promote",
            f"{name} has nothing to promote, version {stable} is stable and canary: publish a new "
            "one, then run `serve --write` again",
        )
    return {**labels, STABLE: canary, PREVIOUS: stable}


def roll_back(name: str, labels: dict[str, int]) -> dict[str, int]:
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
    stable = labels[PREVIOUS]
    canary = stable if labels[CANARY] == labels[STABLE] else labels[CANARY]
    return {**left, STABLE: stable, CANARY: canary}
