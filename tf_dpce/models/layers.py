"""Layers that Keras lacks and both towers or the model need. Pure Keras."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

# The running averages and the constant of the authors' BatchNorm.
BATCH_NORM = {"momentum": 0.95, "epsilon": 1e-3}


def whole_batch(count: Any) -> tuple[Any, Any]:
    """Returns position and size in the global batch of `count` rows that are all of it."""
    return 0, count


def fan_in_uniform() -> keras.initializers.Initializer:
    """Returns the authors' initializer: uniform in +-sqrt(3 / fan_in), of variance 1 / fan_in."""
    return keras.initializers.VarianceScaling(scale=1.0, mode="fan_in", distribution="uniform")


def batch_norm(name: str) -> keras.layers.BatchNormalization:
    """Returns the authors' BatchNorm: epsilon 1e-3, running averages with momentum 0.95."""
    return keras.layers.BatchNormalization(name=name, **BATCH_NORM)


@keras.saving.register_keras_serializable("tf_dpce")
class WordEmbedding(keras.layers.Layer):
    """Looks up word vectors and adds one bias to all positions (the authors' first convolution).

    A convolution of width 1 over one-hot words is a look-up. An empty position (id 0) is an
    all-zero one-hot vector: it gives the bias alone, and the matrix has no row for it.

    Args:
        vocabulary_size: The number V of words; ids run from 1 to V.
        output_dim: The width of a word vector.
        expansion: The number X of further words, of ids V + 1 to V + X, whose vectors are stored
            in float16 and not trained.

    Example:
        >>> WordEmbedding(100, 8)(np.array([[5, 0]])).shape
        TensorShape([1, 2, 8])
    """

    def __init__(
        self, vocabulary_size: int, output_dim: int, expansion: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.output_dim = output_dim
        self.expansion = expansion

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        limit = math.sqrt(3.0 / self.output_dim)
        self.embeddings = self.add_weight(
            shape=(self.vocabulary_size, self.output_dim),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="embeddings",
        )
        self.bias = self.add_weight(shape=(self.output_dim,), initializer="zeros", name="bias")
        if self.expansion:
            self.inferred = self.add_weight(
                shape=(self.expansion, self.output_dim),
                initializer="zeros",
                dtype="float16",
                trainable=False,
                # The rows that are looked up are cast, not the table.
                autocast=False,
                name="inferred",
            )

    def call(self, ids: Any) -> Any:
        """Returns `[B, T, output_dim]` of integer ids `[B, T]`."""
        rows = ops.maximum(ids - 1, 0)
        if self.expansion:
            rows = ops.minimum(rows, self.vocabulary_size - 1)
        vectors = ops.take(self.embeddings, rows, axis=0)
        if self.expansion:
            beyond = ids - self.vocabulary_size
            inferred = ops.take(self.inferred, ops.maximum(beyond - 1, 0), axis=0)
            inferred = ops.cast(inferred, vectors.dtype)
            vectors = ops.where(ops.expand_dims(beyond > 0, -1), inferred, vectors)
        present = ops.cast(ops.expand_dims(ids > 0, -1), vectors.dtype)
        return vectors * present + self.bias

    def table(self) -> Any:
        """Returns the result of each id, float32 `[1 + V + X, output_dim]`: first that of none."""
        rows = [self.embeddings, *([self.inferred] if self.expansion else [])]
        rows = [ops.cast(ops.convert_to_tensor(each), "float32") for each in rows]
        empty = ops.zeros((1, self.output_dim), "float32")
        return ops.concatenate([empty, *rows]) + ops.cast(self.bias, "float32")

    def get_config(self) -> dict[str, Any]:
        names = ("vocabulary_size", "output_dim", "expansion")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("tf_dpce")
class CausalConvolution(keras.layers.Conv1D):
    """`Conv1D` that pads on the left and computes by matrix products.

    On a CPU a product of all positions at once takes down to half of the time of TensorFlow's
    convolution, its gradients included, and a stride leaves positions out before the product
    instead of after it.

    Args:
        filters: The width of the result.
        kernel_size: The number of positions that a result sees, its own and those before it.
        strides: The distance of two positions whose results are computed.
        use_bias: Whether a bias is added.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        fixed = {"padding": "causal", "use_bias": use_bias}
        super().__init__(filters, kernel_size, strides, **{**kwargs, **fixed})

    def call(self, inputs: Any) -> Any:
        """Returns `[B, ceil(T / strides), filters]` of `[B, T, C]`."""
        stride = self.strides[0]
        if self.kernel_size[0] > 2:
            return self._over_windows(inputs, stride)
        # With stride 1 the input is used as it is, because in a graph even [::1] is copied.
        seen = inputs if stride == 1 else inputs[:, ::stride]
        here = _product(seen, self.kernel[-1], self.bias)
        if self.kernel_size[0] == 1 or here.shape[1] == 1:
            return here
        # The position before each position t * stride; the first has none.
        earlier = inputs if stride == 1 else inputs[:, stride - 1 :: stride]
        before = earlier[:, : ops.shape(here)[1] - 1]
        return here + ops.pad(_product(before, self.kernel[0]), ((0, 0), (1, 0), (0, 0)))

    def _over_windows(self, inputs: Any, stride: int) -> Any:
        """Returns the same by one product over what each position sees, side by side."""
        width, length = self.kernel_size[0], ops.shape(inputs)[1]
        padded = ops.pad(inputs, ((0, 0), (width - 1, 0), (0, 0)))
        seen = [padded[:, first : first + length : stride] for first in range(width)]
        matrix = ops.reshape(self.kernel, (-1, self.filters))
        return _product(ops.concatenate(seen, axis=-1), matrix, self.bias)


def _product(inputs: Any, matrix: Any, bias: Any = None) -> Any:
    """Returns `[B, T, D]` of `[B, T, C]`, a matrix `[C, D]` and a bias `[D]`; T may be unknown."""
    rows = ops.matmul(ops.reshape(inputs, (-1, inputs.shape[-1])), matrix)
    # The bias is added to the flat rows: TensorFlow fuses that with the product.
    rows = rows if bias is None else rows + bias
    return ops.reshape(rows, (-1, ops.shape(inputs)[1], matrix.shape[-1]))


@keras.saving.register_keras_serializable("tf_dpce")
class RowDropout(keras.layers.Dropout):
    """Dropout whose mask is a function of the seed, the step and the row of the global batch.

    Keras gives all replicas the same mask, so that a batch over two replicas trains another model
    than the same batch on one. Here every replica draws the mask of the global batch and takes
    the rows that it holds.

    Attributes:
        rows: A function from the number of rows at hand to their first position in the global
            batch and to its size. A trainer of several replicas replaces it.
    """

    rows = staticmethod(whole_batch)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Returns `inputs`, `[B, ...]`; in training a share `rate` zeroed, the rest scaled up."""
        if not training or self.rate == 0:
            return inputs
        shape = ops.shape(inputs)
        noise_shape = self.noise_shape or (None,) * len(shape)
        # The mask of one row; a size of 1 repeats a draw along that axis.
        row = [s if n is None else n for n, s in zip(noise_shape[1:], shape[1:], strict=True)]
        first, total = self.rows(shape[0])
        draws = keras.random.uniform([total, *row], seed=self.seed_generator)
        own = ops.slice(draws, [first, *(0 for _ in row)], [shape[0], *row])
        return inputs * ops.cast(own >= self.rate, inputs.dtype) / (1 - self.rate)


@keras.saving.register_keras_serializable("tf_dpce")
class InferenceMode(keras.layers.Wrapper):
    """Runs a layer in inference mode, also if the model around it is trained.

    A `training=False` in a functional model does not do that: Keras replaces it by the
    `training=True` with which `fit` calls the model.

    Args:
        layer: The layer, or model, to run.
    """

    def call(self, inputs: Any) -> Any:
        """Returns what `layer` returns with `training=False`."""
        return self.layer(inputs, training=False)


@keras.saving.register_keras_serializable("tf_dpce")
class UnitLength(keras.layers.Layer):
    """Divides each vector `[B, D]` by its length: x / sqrt(1e-8 + sum x^2), the authors' code."""

    def call(self, vectors: Any) -> Any:
        """Returns `[B, D]`."""
        squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
        return vectors * ops.rsqrt(squares + 1e-8)
