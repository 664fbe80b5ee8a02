"""The arithmetic that a run trains in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import keras

from tf_dpce.config import Config

_P = ParamSpec("_P")
_R = TypeVar("_R")


def in_own_precision(
    function: Callable[Concatenate[Config, _P], _R],
) -> Callable[Concatenate[Config, _P], _R]:
    """Returns a function of a configuration that computes in that configuration's `precision`.

    Only layers made meanwhile do so: a run that is loaded later computes in float32, from the
    same float32 weights.
    """

    @wraps(function)
    def computing(config: Config, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        before = keras.config.dtype_policy()
        if config.precision == "bfloat16":
            keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            return function(config, *args, **kwargs)
        finally:
            keras.config.set_dtype_policy(before)

    return computing
