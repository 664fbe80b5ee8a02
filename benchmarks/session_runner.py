"""A function of a SavedModel as TF Serving runs it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf


class SessionRunner:
    """An endpoint of a SavedModel in a Session, without the request around it.

    Args:
        folder: of the SavedModel.
        endpoint: name of a signature with one input; its output `embedding`, or its only one, is
            what is asked for.

    Example:
        >>> double = tf.function(lambda rows: 2 * rows, input_signature=[tf.TensorSpec([None])])
        >>> with saved(double) as folder:
        ...     runner = SessionRunner(folder)
        >>> runner([1.0, 2.0])
        array([2., 4.], dtype=float32)
    """

    def __init__(self, folder: str, endpoint: str = "serving_default") -> None:
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], folder)
        signature = graph.signature_def[endpoint]
        (given,) = signature.inputs.values()
        wanted = signature.outputs.get("embedding") or next(iter(signature.outputs.values()))
        self._given, self._wanted = given.name, wanted.name
        self._run = self._session.make_callable(self._wanted, [self._given])

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns vectors float32 `[B, D]` of rows `[B, ...]`."""
        return self._run(rows)


@contextmanager
def saved(function: Any) -> Iterator[str]:
    """Yields a folder with a SavedModel of one `tf.function` that has a signature."""
    module = tf.Module()
    module.function = function
    concrete = function.get_concrete_function()
    # What the function holds by weak references only.
    module.weights = list(concrete.graph.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=concrete)
        yield folder
