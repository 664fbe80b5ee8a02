"""How many epochs fill the minutes of an arm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

from tf_dpce.config import Config


def work_of(config: Config, stage: int, data: Path) -> str:
    """Returns a digest that is equal for stages whose steps do the same work.

    Args:
        config: of an arm.
        stage: number of the stage.
        data: folder of what it is trained on.
    """
    settings = (str(data), config.image, config.text, config.model, config.stage(stage))
    return sha256(repr(settings).encode()).hexdigest()[:12]


def decide_epochs(arms: Mapping[str, Mapping[str, Any]], minutes: float) -> None:
    """Adds the seconds of a step and the epochs to the timing of every arm.

    Stages of the same work have one time, the median of all that were measured of it: two arms with
    the same loss do not get different epochs because the machine was slower for half a minute.

    Args:
        arms: entries of `study.json`. Each part of `timing` has `measured`, seconds, and `work` of
            `work_of`.
        minutes: of each arm, divided among its stages.

    Example:
        >>> part = {"stage": 1, "work": "a", "measured": 2.0, "steps_per_epoch": 3}
        >>> arms = {"one": {"timing": [part]}}
        >>> decide_epochs(arms, minutes=0.5)
        >>> arms["one"]["timing"][0]["epochs"]
        5
    """
    measured = defaultdict(list)
    for entry in arms.values():
        for part in entry["timing"]:
            measured[part["work"]].append(part["measured"])
    for entry in arms.values():
        for part in entry["timing"]:
            part["seconds_per_step"] = median(measured[part["work"]])
            epoch = part["seconds_per_step"] * part["steps_per_epoch"]
            part["epochs"] = max(1, int(60 * minutes / len(entry["timing"]) / epoch))
