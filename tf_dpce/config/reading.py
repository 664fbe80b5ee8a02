"""Presets and nested dicts -> a configuration, and back."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from tf_dpce.config.checks import check_values
from tf_dpce.config.sections import Config
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
        raise UserError(f"unknown preset {name}: one of {', '.join(preset_names())}")
    return yaml.safe_load((resources.files("tf_dpce.presets") / f"{name}.yaml").read_text())


def from_dict(values: dict[str, Any]) -> Config:
    """Builds a `Config`; what is not named keeps its default.

    Raises:
        UserError: an unknown key, a value of the wrong type or one that nothing can be made of.

    Example:
        >>> from_dict({"seed": 3, "stage1": {"epochs": 2}}).stage1.epochs
        2
    """
    _check_sections(values, Config)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        parsed = parser.parse_object(values)
    except Exception as error:
        raise UserError(f"configuration: {' '.join(str(error).split())}") from None
    config = Config(**parser.instantiate(parsed).as_dict())
    check_values(config, to_dict(config))
    return config


def _check_sections(values: dict[str, Any], kind: Any, prefix: str = "") -> None:
    """Refuses what jsonargparse would drop or trip over: no mapping for a section, or a null."""
    for item in (i for i in dataclasses.fields(kind) if i.name in values):
        value, section = values[item.name], item.default_factory
        if dataclasses.is_dataclass(section) and isinstance(value, dict):
            _check_sections(value, section, f"{prefix}{item.name}.")
        elif dataclasses.is_dataclass(section) or (value is None and "None" not in item.type):
            raise UserError(f"configuration: {prefix}{item.name} cannot be {value!r}")


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the nested dict of JSON types from which `from_dict` builds `config` again."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
