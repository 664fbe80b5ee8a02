"""Writes an encoder as a file of LiteRT, in float32 or in a smaller precision."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tf_dpce.errors import UserError, shorten
from tf_dpce.models.layers import WordEmbedding
from tf_dpce.runtimes import Precision

# In whole numbers its result has steps of 1/128: too few where a thousand numbers have length 1.
_FLOAT = ["L2_NORMALIZATION"]


def write_litert(
    encoder: keras.Model,
    path: Path,
    precision: Precision = "float32",
    examples: Sequence[np.ndarray] = (),
) -> None:
    """Writes an encoder as a file `.tflite`, for one row at a time.

    Args:
        encoder: what `models.fuse_batch_norm.folded` returned, see `onnx_graph.write_onnx`.
        path: the file to write.
        precision: see `write.write_runtimes`.
        examples: for int8, rows of training data: pixels `[N, S, S, 3]` or token ids `[N, T]`.
            Their results decide which numbers each layer can tell apart.

    Raises:
        UserError: LiteRT lacks an operation of the encoder.
    """
    try:
        with _quiet():
            model = _converted(encoder, precision, examples)
    except ConverterError as error:
        raise _unsupported(error) from error
    path.write_bytes(model)


def _converted(encoder: keras.Model, precision: Precision, examples: Sequence[np.ndarray]) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([_frozen(encoder)], tf.Module())
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return _int8(converter, examples) if precision == "int8" else converter.convert()


def _int8(converter: tf.lite.TFLiteConverter, examples: Sequence[np.ndarray]) -> bytes:
    converter.representative_dataset = lambda: ([row[np.newaxis]] for row in examples)
    # The converter can leave operations out only by way of its debugger.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=_FLOAT)
    debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=options)
    return debugger.get_nondebug_quantized_model()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps out what the converter says of itself through Python, whatever the model."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Table(keras.layers.Layer):
    """Gathers the results of a `WordEmbedding`, all of which are rows of one table."""

    def __init__(self, words: WordEmbedding) -> None:
        super().__init__(name=words.name)
        self._table = np.asarray(words.table())

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.constant(self._table), ids)


def _frozen(encoder: keras.Model) -> Any:
    # LiteRT gathers no rows in float16, in which the rows of inferred words are.
    encoder = keras.models.clone_model(
        encoder,
        clone_function=lambda each: _Table(each) if isinstance(each, WordEmbedding) else each,
        recursive=True,
    )
    # For one row at a time: all shapes are known then, and XNNPACK computes the whole graph.
    shape = (1, *encoder.input_shape[1:])
    given = tf.TensorSpec(shape, encoder.input.dtype, name="rows")
    function = tf.function(lambda rows: encoder(rows, training=False), [given], autograph=False)
    # The converter itself leaves Keras's weights out, as variables that nobody sets.
    return convert_variables_to_constants_v2(function.get_concrete_function())


def _unsupported(error: ConverterError) -> UserError:
    """Names the first operation that LiteRT lacks, and the layers that it is in."""
    first = next(iter(error.errors), None)
    calls = first.location.call if first else ()
    place = calls[0].name if calls else "an unknown layer"
    name = first.operator.name if first else shorten(str(error).partition("\n")[0], 200)
    message = (
        f"the operation {name} of {place} has no counterpart in LiteRT: export without --format "
        "litert, or build the tower from other layers"
    )
    return UserError("runtimes.operation", message)
