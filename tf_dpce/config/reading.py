"""Presets and nested dicts -> a configuration, and back."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from tf_dpce.config.sections import Config, StageConfig
from tf_dpce.errors import UserError


def preset_names() -> list[str]:
    """Returns the names of the presets that come with the library."""
    folder = resources.files("tf_dpce.presets")
    return sorted(Path(i.name).stem for i in folder.iterdir() if i.name.endswith(".yaml"))


def preset_values(name: str) -> dict[str, Any]:
    """Returns the values of a preset, as nested dicts.

    Raises:
        UserError: there is no such preset.
    """
    if name not in preset_names():
        raise UserError(
            "config.preset", f"unknown preset {name}: give one of {', '.join(preset_names())}"
        )
    return yaml.safe_load((resources.files("tf_dpce.presets") / f"{name}.yaml").read_text())


def from_dict(values: dict[str, Any]) -> Config:
    """Builds a `Config`; keys that are not named keep their defaults.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or is
            out of its range.

    Example:
        >>> from_dict({"seed": 3, "stage1": {"epochs": 2}}).stage1.epochs
        2
    """
    if isinstance(values.get("vectors"), str):
        # One file, as runs from before there could be several have it.
        values = {**values, "vectors": [values["vectors"]]}
    _check_keys(values, Config)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        parsed = parser.parse_object(values)
    except Exception as error:
        # The message names the key, the value and its range, in several lines.
        line = " ".join(str(error).split()).removeprefix("Parser key ")
        raise UserError("config.value", f"configuration: {line}") from None
    config = _with_plain_numbers(Config(**parser.instantiate(parsed).as_dict()))
    _check_values(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the nested dict of JSON types from which `from_dict` builds `config` again."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _with_plain_numbers(value: Any) -> Any:
    """Replaces jsonargparse's subclasses of int and float, which Keras takes for dtypes."""
    if dataclasses.is_dataclass(value):
        names = [item.name for item in dataclasses.fields(value)]
        changes = {name: _with_plain_numbers(getattr(value, name)) for name in names}
        return dataclasses.replace(value, **changes)
    if isinstance(value, tuple):
        return tuple(map(_with_plain_numbers, value))
    if isinstance(value, dict):
        return {key: _with_plain_numbers(item) for key, item in value.items()}
    for kind in (float, int):
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind(value)
    return value


def _check_keys(values: dict[str, Any], kind: Any, prefix: str = "") -> None:
    """Refuses unknown keys, and what jsonargparse would drop: a null or no mapping for a section.

    Args:
        values: The nested values of a section.
        kind: The dataclass of the section.
        prefix: The section's name with a dot.
    """
    known = {item.name: item for item in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known:
            key = f"{prefix}{name}"
            raise UserError("config.unknown_key", f"configuration: there is no key {key}")
        section = known[name].default_factory
        if dataclasses.is_dataclass(section) and isinstance(value, dict):
            _check_keys(value, section, f"{prefix}{name}.")
        elif dataclasses.is_dataclass(section) or (
            value is None and "None" not in known[name].type
        ):
            raise UserError("config.value", f"configuration: {prefix}{name} cannot be {value!r}")


def _check_values(config: Config) -> None:
    """Refuses a mix of keys that no run can use.

    Raises:
        UserError: two keys contradict one another; the message names both.
    """
    text, groups = config.text, len(config.text.blocks)
    if text.tower == "convolutional" and not groups == len(text.widths) > 0:
        raise UserError(
            "config.widths",
            f"configuration: text.blocks names {groups} groups and text.widths "
            f"{len(text.widths)}: give one width for each group of blocks",
        )
    words = [word for pair in text.opposites for word in pair]
    if len(set(words)) < len(words):
        message = "configuration: text.opposites names a word twice: give each word one opposite"
        raise UserError("config.opposites", message)
    for number in (1, 2):
        loss = config.stage(number).loss
        if not (loss.image_instance or loss.text_instance or loss.pair or loss.distillation):
            raise UserError(
                "config.no_loss",
                f"configuration: the weights in stage{number}.loss are all 0: give image_instance, "
                "text_instance or pair one above 0",
            )
        _check_prefixes(config, number)
        _check_distillation(config, number)
        if text.opposites and config.stage(number).epochs:
            _check_turned_copies(config.stage(number), number)


def _check_prefixes(config: Config, number: int) -> None:
    """Refuses prefixes that are none of the embedding, or that no loss compares."""
    loss, dim = config.stage(number).loss, config.model.output_dim
    if not loss.prefixes:
        return
    if not loss.pair or len(set(loss.prefixes)) < len(loss.prefixes) or max(loss.prefixes) >= dim:
        raise UserError(
            "config.prefixes",
            f"configuration: stage{number}.loss.prefixes {list(loss.prefixes)}: give lengths below "
            f"model.output_dim {dim}, each once, and stage{number}.loss.pair a weight above 0",
        )


def _check_distillation(config: Config, number: int) -> None:
    """Refuses a teacher beside captions and images that it has no embedding of."""
    stage, wrong = config.stage(number), ""
    if not config.teacher:
        wrong = "needs a teacher: give --teacher EMBEDDINGS"
    elif stage.epochs and (config.text.opposites or stage.loss.mines_negatives):
        wrong = (
            "needs pairs that the teacher knows: mine no negatives and turn no copies, or give 0"
        )
    if stage.loss.distillation and wrong:
        message = f"configuration: stage{number}.loss.distillation {wrong}"
        raise UserError("config.teacher", message)


def _check_turned_copies(stage: StageConfig, number: int) -> None:
    """Refuses turned copies where they have no features or no class."""
    loss = stage.loss
    instances = loss.image_instance or loss.text_instance
    if stage.backbone == "cached" or instances or loss.pair_loss != "contrastive":
        raise UserError(
            "config.opposites",
            "configuration: text.opposites needs the contrastive loss alone and a backbone that is "
            f"not cached: change stage{number}, or leave it out",
        )
