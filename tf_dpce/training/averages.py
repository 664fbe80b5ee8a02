"""The running average of the weights, in their place while it is judged and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def averaged(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Puts the averages in place of the trained weights for as long as the block lasts.

    The weights come back bit by bit. An optimizer that keeps no averages changes nothing.

    Args:
        optimizer: built, with `use_ema` or without.
    """
    averages = optimizer._model_variables_moving_average if optimizer.use_ema else ()
    weights = optimizer._trainable_variables[: len(averages)]
    kept = [variable.numpy() for variable in weights]
    _assign(weights, averages)
    try:
        yield
    finally:
        _assign(weights, kept)


def _assign(variables: list[keras.Variable], values: list) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
