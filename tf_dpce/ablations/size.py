"""Towers of equal size: the widths at which another text tower has as many parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np

from tf_dpce.config import Config
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.assembly import text_tower_of

# Number of layers that share the one width that is looked for.
_LAYERS = {"recurrent": 1, "bag_of_words": 2}
_TRIED = (4, 5, 6)


def text_parameters(tower: keras.Model) -> int:
    """Returns the number of trainable parameters of a text tower, its word vectors left out."""
    words = {id(variable) for variable in tower.get_layer("text_embedding").variables}
    return sum(math.prod(v.shape) for v in tower.trainable_variables if id(v) not in words)


def parameters(model: DualPath) -> int:
    """Returns the number of trainable parameters of a model, frozen or not, all included."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def equal_widths(config: Config, base: Config) -> tuple[int, ...]:
    """Returns the widths at which a text tower is as large as another.

    Args:
        config: with the tower, whatever its widths.
        base: with the tower whose size is met.
    """
    layers = _LAYERS[config.text.tower]
    # Weights join one width with the same or a constant one: their number is a parabola of the
    # width, which three narrow towers tell.
    counts = [_count(_with_widths(config, (width,) * layers)) for width in _TRIED]
    square, linear, constant = np.polyfit(_TRIED, counts, 2)
    missing = constant - _count(base)
    width = (-linear + math.sqrt(max(0.0, linear**2 - 4 * square * missing))) / (2 * square)
    return (max(min(_TRIED), round(width)),) * layers


def _with_widths(config: Config, widths: tuple[int, ...]) -> Config:
    return replace(config, text=replace(config.text, widths=widths))


def _count(config: Config) -> int:
    return text_parameters(text_tower_of(config, vocabulary_size=1))
