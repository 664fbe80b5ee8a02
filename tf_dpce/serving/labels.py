"""Which version answers whom: `stable` everybody, `canary` those who try what is new.

A third label, `previous`, keeps the version that was stable before, for the way back. Other
labels, which somebody else wrote, stay where they are. No label is left on a version that is gone:
TF Serving would not take the configuration over, for no model in it.
"""

from __future__ import annotations

from tf_dpce.errors import UserError

STABLE = "stable"
CANARY = "canary"
PREVIOUS = "previous"


def settled(labels: dict[str, int], versions: list[int]) -> dict[str, int]:
    """Returns a model's labels without those whose version is gone.

    `stable` falls back to `previous`, and `canary` to `stable`, where there is one.

    Args:
        labels: what the model has.
        versions: that can be served.
    """
    here = {label: number for label, number in labels.items() if number in versions}
    if STABLE not in here and PREVIOUS in here:
        here[STABLE] = here.pop(PREVIOUS)
    if STABLE in here:
        here.setdefault(CANARY, here[STABLE])
    return here


def begun(name: str, labels: dict[str, int], versions: list[int]) -> dict[str, int]:
    """Returns a model's labels as they are, or those of a new model, in its newest version.

    Args:
        name: of the model.
        labels: what it has so far; none is a new model.
        versions: that can be served, rising.

    Raises:
        UserError: the stable version is gone from the disk, and so is the one before.
    """
    here = settled(labels or {STABLE: versions[-1]}, versions)
    if STABLE not in here:
        raise UserError(
            f"version {labels[STABLE]} of {name} is stable, but is gone from the disk or damaged: "
            "put it back, or remove models.config to begin with the newest version"
        )
    return here


def tried(name: str, labels: dict[str, int], versions: list[int]) -> dict[str, int]:
    """Returns a model's labels when its newest version is to be tried.

    Args and errors are those of `begun`.
    """
    return {**begun(name, labels, versions), CANARY: versions[-1]}


def promoted(name: str, labels: dict[str, int]) -> dict[str, int]:
    """Returns a model's labels when what was tried becomes stable.

    Raises:
        UserError: it is stable already.
    """
    stable, canary = labels[STABLE], labels[CANARY]
    if stable == canary:
        raise UserError(
            f"{name} has nothing to promote, version {stable} is stable and canary: publish a new "
            "one, then run `serve --write` again"
        )
    return {**labels, STABLE: canary, PREVIOUS: stable}


def rolled_back(name: str, labels: dict[str, int]) -> dict[str, int]:
    """Returns a model's labels when the version before becomes stable again.

    Who tries what is new leaves the bad version as well: `canary` goes back with `stable`, unless
    it is at another version already.

    Raises:
        UserError: there is none.
    """
    if PREVIOUS not in labels:
        raise UserError(
            f"{name} has no version to go back to: {labels[STABLE]} is the first stable"
        )
    kept = {label: number for label, number in labels.items() if label != PREVIOUS}
    stable = labels[PREVIOUS]
    canary = stable if labels[CANARY] == labels[STABLE] else labels[CANARY]
    return {**kept, STABLE: stable, CANARY: canary}
