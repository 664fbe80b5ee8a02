"""Reads the variants of a question from `variants.yaml` and makes the configuration of each."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tf_dpce.config import Config, from_dict, preset_values
from tf_dpce.errors import UserError
from tf_dpce.evaluation.protocols import split_named
from tf_dpce.preprocessing.word_vectors import check_vectors

if TYPE_CHECKING:
    import keras

QUESTIONS = ("text_tower", "objective", "parts", "transfer")
# It has one stage. Small towers, so that all variants of a question train within an hour or two.
PRESET = "flickr8k_small"
VALIDATIONS = 10
SPLIT = "val"

# Number of layers of a text tower, which have the same width.
_LAYERS = {"recurrent": 1, "bag_of_words": 2}

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One of the paper's questions, and what the user sets for all of its variants.

    Attributes:
        name: a name in `QUESTIONS`.
        weights: weights of the backbone; None leaves the preset's.
        vectors: file of word vectors.
        epochs: epochs of each variant, all stages together; None takes the preset's.
        seed: seed of all variants.

    Raises:
        UserError: there is no such question.

    Example:
        >>> [*Question("text_tower").variants()]
        ['convolutional', 'recurrent', 'bag_of_words']
    """

    name: str
    weights: str | None = None
    vectors: str | None = None
    epochs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in QUESTIONS:
            message = f"unknown question {self.name}: give one of {', '.join(QUESTIONS)}"
            raise UserError("ablation.question", message)

    def check_sources(self, sources: Sequence[Path]) -> None:
        """Refuses data that the question cannot be answered with, and missing word vectors.

        Args:
            sources: folders of prepared data; several for the question `transfer` alone.

        Raises:
            UserError: one of these.
        """
        for name, each in self._entry()["variants"].items():
            if each.get("vectors") and self.vectors is None:
                raise UserError(
                    "ablation.vectors",
                    f"the question {self.name} needs --vectors FILE, word vectors for the variant "
                    f"{name}",
                )
        if self.vectors is not None:
            check_vectors(Path(self.vectors))
        if (self.name == "transfer") != (len(sources) > 1):
            raise UserError(
                "ablation.other",
                "the question transfer needs --other DIR, prepared data to score on as well; no "
                "other question takes it",
            )
        for source in sources:
            split_named(source, SPLIT)
        if len({source.resolve().name for source in sources}) < len(sources):
            raise UserError(
                "ablation.names",
                f"two folders of data are called the same ({', '.join(map(str, sources))}), and "
                "the variants are named after them: rename one",
            )

    def variants(self) -> dict[str, Config]:
        """Returns the configuration of each variant by its name."""
        entry = self._entry()
        values = _merged(preset_values(PRESET), entry.get("base", {}))
        given = {"seed": self.seed} | ({"weights": self.weights} if self.weights else {})
        values = _merged(values, given)
        return {name: self._config(values, each) for name, each in entry["variants"].items()}

    def _entry(self) -> Values:
        text = (resources.files("tf_dpce.ablations") / "variants.yaml").read_text()
        return yaml.safe_load(text)[self.name]

    def _config(self, values: Values, entry: Values) -> Config:
        from tf_dpce.models.build import text_tower_of

        base = from_dict(values)
        vectors = None if entry.get("vectors") is False else self.vectors
        changes = {key: value for key, value in entry.items() if key != "stages"}
        stages = {
            f"stage{number}": _merged(values["stage1"], change)
            for number, change in enumerate(entry.get("stages", ({},)), start=1)
        }
        config = from_dict(_merged(values, {**changes, **stages, "vectors": vectors}))
        if config.text.tower != "convolutional":
            config = of_equal_size(config, text_parameters(text_tower_of(base, 1)))
        return _with_epochs(config, self.epochs or base.stage1.epochs)


def trained_stages(config: Config) -> tuple[int, ...]:
    """Returns the numbers of the stages that a configuration trains."""
    return tuple(number for number in (1, 2) if config.stage(number).epochs)


def text_parameters(tower: keras.Model) -> int:
    """Returns the number of trainable parameters of a text tower without its word vectors."""
    words = {id(variable) for variable in tower.get_layer("text_embedding").variables}
    return sum(math.prod(v.shape) for v in tower.trainable_variables if id(v) not in words)


def _merged(values: Values, changes: Values) -> dict[str, Any]:
    """Returns nested values with those of `changes` in their place."""
    both = [k for k in changes if isinstance(values.get(k), dict) and isinstance(changes[k], dict)]
    return {**values, **changes, **{key: _merged(values[key], changes[key]) for key in both}}


def of_equal_size(config: Config, parameters: int) -> Config:
    """Returns a configuration whose text tower has about so many parameters."""

    from tf_dpce.models.build import text_tower_of

    def widened(width: int) -> Config:
        widths = (width,) * _LAYERS[config.text.tower]
        return replace(config, text=replace(config.text, widths=widths))

    def size(width: int) -> int:
        return text_parameters(text_tower_of(widened(width), vocabulary_size=1))

    # Doubled first, because wide towers take long to build.
    above = next(2**n for n in count(3) if size(2**n) >= parameters)
    widths = range(above // 2, above)
    return widened(widths[0] + bisect_left(widths, parameters, key=size))


def _with_epochs(config: Config, epochs: int) -> Config:
    """Returns a configuration of so many epochs, its schedules stretched or shortened."""
    stages = {f"stage{n}": config.stage(n) for n in trained_stages(config)}
    factor = epochs / sum(stage.epochs for stage in stages.values())
    for name, stage in stages.items():
        stages[name] = replace(
            stage,
            epochs=max(1, round(stage.epochs * factor)),
            warmup_epochs=stage.warmup_epochs * factor,
            decay_epochs=tuple(max(1, round(epoch * factor)) for epoch in stage.decay_epochs),
            # About as many points on the curve of each variant.
            validate_every=math.ceil(epochs / VALIDATIONS),
        )
    return replace(config, **stages)
