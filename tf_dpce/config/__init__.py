"""The whole configuration of a run: typed, frozen, and the same in files and on command lines."""

from __future__ import annotations

from tf_dpce.config.reading import from_dict, preset_names, preset_values, to_dict
from tf_dpce.config.sections import (
    Config,
    ImageConfig,
    LossConfig,
    ModelConfig,
    Resize,
    StageConfig,
    TextConfig,
    TokenKind,
)

CONFIG_FILE = "config.json"  # in the folder of a run

__all__ = [
    "CONFIG_FILE",
    "Config",
    "ImageConfig",
    "LossConfig",
    "ModelConfig",
    "Resize",
    "StageConfig",
    "TextConfig",
    "TokenKind",
    "from_dict",
    "preset_names",
    "preset_values",
    "to_dict",
]
