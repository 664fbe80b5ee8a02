"""Arms of a study, read from `arms.yaml`, and the configuration of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import yaml

from tf_dpce.ablations.size import equal_widths
from tf_dpce.config import Config, StageConfig, from_dict, preset_values
from tf_dpce.errors import UserError

STUDIES = ("text_tower", "objective", "parts", "transfer")
DEFAULT_PRESET = "flickr8k_small"
POINTS = 10
# What a stage says of a backbone that it trains.
_OF_BACKBONE = ("backbone_multiplier", "backbone_from")

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """One arm: what it changes, as in `arms.yaml`.

    Attributes:
        name: of the arm, and of its folder.
        changes: nested values of configuration keys outside the stages.
        stages: nested values of keys of a stage: none, one or two.
        vectors: whether it starts from word vectors; None leaves that to the user.
    """

    name: str
    changes: Values
    stages: tuple[Values, ...] = ()
    vectors: bool | None = None

    @property
    def overrides(self) -> dict[str, Any]:
        """What the arm changes, as in the file."""
        said = {"stages": list(self.stages), "vectors": self.vectors}
        return {**self.changes, **{key: value for key, value in said.items() if value}}


@dataclass(frozen=True)
class Question:
    """What the arms of a study start from, and what the user gives to all of them.

    Attributes:
        study: a name in `STUDIES`.
        preset: name of a preset; None takes the study's own.
        weights: of the backbone; None leaves the preset's.
        vectors: file of word vectors.
        seed: of all arms.
    """

    study: str
    preset: str | None = None
    weights: str | None = None
    vectors: str | None = None
    seed: int = 0

    def arms(self) -> tuple[Arm, ...]:
        """Returns the arms of the study.

        Raises:
            UserError: there is no such study, or an arm needs word vectors and there are none.
        """
        arms = tuple(_arm(name, said) for name, said in _study(self.study)["arms"].items())
        needy = [arm.name for arm in arms if arm.vectors and self.vectors is None]
        if needy:
            raise UserError(
                f"the study {self.study} needs --vectors FILE, word vectors for its arm {needy[0]}"
            )
        return arms

    def values(self) -> dict[str, Any]:
        """Returns the nested values that the arms change.

        Raises:
            UserError: there is no such preset.
        """
        values, study = preset_values(self.preset or DEFAULT_PRESET), _study(self.study)
        if self.preset is None:
            values = merged(values, study.get("base", {}))
        values = merged(values, study.get("every", {}))
        given = {"seed": self.seed} | ({"weights": self.weights} if self.weights else {})
        return merged(values, given)

    def config(self, arm: Arm) -> Config:
        """Returns the configuration of an arm, with the preset's epochs in each stage."""
        base = from_dict(self.values())
        stages = _stages(arm, base, self.values())
        vectors = None if arm.vectors is False else self.vectors
        changes = merged(arm.changes, {**stages, "vectors": vectors})
        config = from_dict(merged(self.values(), changes))
        if config.text.tower != "convolutional":
            widths = equal_widths(config, base)
            config = replace(config, text=replace(config.text, widths=widths))
        return config


def merged(values: Values, changes: Values) -> dict[str, Any]:
    """Returns nested values with those of `changes` in their place."""
    both = [k for k in changes if isinstance(values.get(k), dict) and isinstance(changes[k], dict)]
    return {**values, **changes, **{key: merged(values[key], changes[key]) for key in both}}


def trained_stages(config: Config) -> tuple[int, ...]:
    """Returns the numbers of the stages that a configuration trains."""
    return tuple(number for number in (1, 2) if config.stage(number).epochs)


def with_epochs(config: Config, epochs: Mapping[int, int]) -> Config:
    """Returns a configuration whose stages have other epochs, their schedules stretched with them.

    Args:
        config: of an arm.
        epochs: of each stage, by its number.
    """
    count = len(epochs)
    stages = {f"stage{n}": _stretched(config.stage(n), e, count) for n, e in epochs.items()}
    return replace(config, **stages)


def _stretched(stage: StageConfig, epochs: int, stages: int) -> StageConfig:
    factor = epochs / stage.epochs
    return replace(
        stage,
        epochs=epochs,
        warmup_epochs=stage.warmup_epochs * factor,
        decay_epochs=tuple(max(1, round(epoch * factor)) for epoch in stage.decay_epochs),
        # About as many points on the curve of each arm.
        validate_every=-(-epochs * stages // POINTS),
    )


def _stages(arm: Arm, base: Config, values: Values) -> dict[str, Any]:
    """Returns the values of both stages: those that the preset trains, each with its changes."""
    trained = [values[f"stage{number}"] for number in trained_stages(base)]
    changes = arm.stages or ({},)
    count = max(len(trained), len(changes))
    filled = [_changed(trained, _at(changes, place), place) for place in range(count)]
    return {f"stage{n}": (filled + [{"epochs": 0}] * 2)[n - 1] for n in (1, 2)}


def _changed(stages: Sequence[Values], changes: Values, place: int) -> dict[str, Any]:
    """Returns the values of a stage, changed.

    One that trains the backbone only by its changes knows no rate for it, and takes that of a stage
    that trains it anyway.
    """
    own = _at(stages, place)
    if changes.get("backbone") == "trained" and not _trains_backbone(own):
        other = next(filter(_trains_backbone, stages), {})
        own = merged(own, {key: other[key] for key in _OF_BACKBONE if key in other})
    return merged(own, changes)


def _trains_backbone(stage: Values) -> bool:
    return stage.get("backbone", StageConfig.backbone) == "trained"


def _at(items: Sequence[Values], place: int) -> Values:
    return items[min(place, len(items) - 1)]


def _study(name: str) -> dict[str, Any]:
    if name not in STUDIES:
        raise UserError(f"unknown study {name}: one of {', '.join(STUDIES)}")
    return yaml.safe_load((resources.files("tf_dpce.ablations") / "arms.yaml").read_text())[name]


def _arm(name: str, said: Values) -> Arm:
    changes = {key: value for key, value in said.items() if key not in ("stages", "vectors")}
    return Arm(name, changes, tuple(said.get("stages", ())), said.get("vectors"))
