"""Which version answers whom: `stable` everybody, `canary` those who try what is new.

A third label, `previous`, keeps the version that was stable before, for the way back.
"""

from __future__ import annotations

from tf_dpce.errors import UserError

STABLE = "stable"
CANARY = "canary"
PREVIOUS = "previous"


def tried(name: str, labels: dict[str, int], versions: list[int]) -> dict[str, int]:
    """Returns a model's labels when its newest version is to be tried.

    Args:
        name: of the model.
        labels: what it has so far; none makes the newest version stable as well.
        versions: on disk, rising.

    Raises:
        UserError: the stable version is gone from the disk.
    """
    newest = versions[-1]
    stable = labels.get(STABLE, newest)
    if stable not in versions:
        raise UserError(
            f"version {stable} of {name} is stable, but is gone from the disk: put it back, or "
            "remove models.config to begin with the newest version"
        )
    kept = {PREVIOUS: labels[PREVIOUS]} if labels.get(PREVIOUS) in versions else {}
    return {STABLE: stable, CANARY: newest, **kept}


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
    return {STABLE: canary, CANARY: canary, PREVIOUS: stable}


def rolled_back(name: str, labels: dict[str, int]) -> dict[str, int]:
    """Returns a model's labels when the version before becomes stable again.

    Raises:
        UserError: there is none.
    """
    if PREVIOUS not in labels:
        raise UserError(
            f"{name} has no version to go back to: {labels[STABLE]} is the first stable"
        )
    return {STABLE: labels[PREVIOUS], CANARY: labels[CANARY]}
