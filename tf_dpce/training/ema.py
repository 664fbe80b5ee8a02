"""Running averages of the weights, which stand in for them in validations and best weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np


@contextmanager
def averaged(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Puts the averages in place of the trained weights for as long as the block lasts.

    The weights come back bit by bit. An optimizer that keeps no averages changes nothing.

    Args:
        optimizer: built, with `use_ema` or without.
    """
    averages = optimizer._model_variables_moving_average if optimizer.use_ema else ()
    weights = optimizer._trainable_variables[: len(averages)]
    own = _copies(weights)
    _assign(weights, _copies(averages))
    try:
        yield
    finally:
        _assign(weights, own)


def _copies(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    # Under JAX an assignment shares memory, and whoever computes with a weight may take it over.
    return [np.array(variable.numpy()) for variable in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
