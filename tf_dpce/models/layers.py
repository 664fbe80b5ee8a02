"""Layers that Keras lacks and both towers or the model need."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

# The running averages and the constant of the authors' BatchNorm.
BATCH_NORM = {"momentum": 0.95, "epsilon": 1e-3}


def whole_batch(count: Any) -> tuple[Any, Any]:
    """Returns the place in the global batch, and its size, of `count` rows that are all of it."""
    return 0, count


def fan_in_uniform() -> keras.initializers.Initializer:
    """Uniform in +-sqrt(3 / fan_in): variance 1 / fan_in, as in the authors' code."""
    return keras.initializers.VarianceScaling(scale=1.0, mode="fan_in", distribution="uniform")


def batch_norm(name: str) -> keras.layers.BatchNormalization:
    """Returns the authors' BatchNorm: epsilon 1e-3, running averages with momentum 0.95."""
    return keras.layers.BatchNormalization(name=name, **BATCH_NORM)


def member_width(width: int, members: int) -> int:
    """Returns the share that each of M members side by side has of a width.

    Raises:
        ValueError: M does not divide it.
    """
    if width % members:
        raise ValueError(f"Members share a width evenly. Received: {width=}, {members=}")
    return width // members


def member_names(tower: str, members: int) -> list[str]:
    """Returns what the names of each member's layers begin with; one alone has the tower's name."""
    return [tower] if members == 1 else [f"{tower}{number + 1}" for number in range(members)]


def side_by_side(features: list[keras.KerasTensor], name: str) -> keras.KerasTensor:
    """Returns `[B, D]` of the features of all members, `[B, D / M]` each."""
    return features[0] if len(features) == 1 else keras.layers.Concatenate(name=name)(features)


@keras.saving.register_keras_serializable("tf_dpce")
class WordEmbedding(keras.layers.Layer):
    """Word ids -> vectors, with one bias for all places (the authors' first convolution).

    A convolution of width 1 over one-hot words is a look-up; an empty place (id 0) is an all-zero
    one-hot vector, so it gives the bias alone, and its matrix has no row.

    Args:
        vocabulary_size: V, the number of words; ids run from 1 to V.
        output_dim: the width of a word vector.
    """

    def __init__(self, vocabulary_size: int, output_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.output_dim = output_dim

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        limit = math.sqrt(3.0 / self.output_dim)
        self.embeddings = self.add_weight(
            shape=(self.vocabulary_size, self.output_dim),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="embeddings",
        )
        self.bias = self.add_weight(shape=(self.output_dim,), initializer="zeros", name="bias")

    def call(self, ids: Any) -> Any:
        """Returns `[B, T, output_dim]` of integer ids `[B, T]`."""
        vectors = ops.take(self.embeddings, ops.maximum(ids - 1, 0), axis=0)
        present = ops.cast(ops.expand_dims(ids > 0, -1), vectors.dtype)
        return vectors * present + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        config = {"vocabulary_size": self.vocabulary_size, "output_dim": self.output_dim}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("tf_dpce")
class CausalConvolution(keras.layers.Conv1D):
    """`Conv1D` of width 1 or 2, padded on the left, by matrix products.

    On a CPU a product of all places at once takes down to half of the time of TensorFlow's
    convolution, its gradients included, and a stride leaves places out before it, not after.

    Args:
        filters: width of the result.
        kernel_size: 1 or 2.
        strides: places from one result to the next.
        use_bias: whether a bias is added.
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
        if self.kernel_size[0] > 2:
            raise ValueError(f"kernel_size is 1 or 2, not {self.kernel_size[0]}")

    def call(self, inputs: Any) -> Any:
        """Returns `[B, ceil(T / strides), filters]` of `[B, T, C]`."""
        stride = self.strides[0]
        # Taking each place is no slice: in a graph even that one is copied.
        seen = inputs if stride == 1 else inputs[:, ::stride]
        here = _at_places(seen, self.kernel[-1], self.bias)
        if self.kernel_size[0] == 1 or here.shape[1] == 1:
            return here
        # What a place t * stride sees before it; the first place sees nothing there.
        earlier = inputs if stride == 1 else inputs[:, stride - 1 :: stride]
        before = earlier[:, : ops.shape(here)[1] - 1]
        return here + ops.pad(_at_places(before, self.kernel[0]), ((0, 0), (1, 0), (0, 0)))


def _at_places(inputs: Any, matrix: Any, bias: Any = None) -> Any:
    """Returns `[B, T, D]` of `[B, T, C]`, a matrix `[C, D]` and a bias `[D]`; T need not be known.

    The bias comes before the places are told apart again: TensorFlow computes both as one.
    """
    rows = ops.matmul(ops.reshape(inputs, (-1, inputs.shape[-1])), matrix)
    rows = rows if bias is None else rows + bias
    return ops.reshape(rows, (-1, ops.shape(inputs)[1], matrix.shape[-1]))


@keras.saving.register_keras_serializable("tf_dpce")
class RowDropout(keras.layers.Dropout):
    """Dropout whose mask is a function of seed, step and the row of the global batch.

    Keras's gives all replicas the same mask, so that a batch over two of them trains another
    model than the same batch on one. Here every replica draws the mask of the global batch and
    takes the rows that it holds.

    Attributes:
        rows: from the number of rows at hand to their first place in the global batch, and to its
            number of rows. One that trains on several replicas puts its own here.
    """

    rows = staticmethod(whole_batch)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Returns `inputs`, `[B, ...]`; in training a share `rate` zeroed, the rest scaled up."""
        if not training or self.rate == 0:
            return inputs
        shape = ops.shape(inputs)
        given = self.noise_shape or (None,) * len(shape)
        noise = [s if n is None else n for n, s in zip(given, shape, strict=True)]
        first, total = self.rows(shape[0])
        draws = keras.random.uniform([total, *noise[1:]], seed=self.seed_generator)
        own = ops.slice(draws, [first, *(0 for _ in noise[1:])], [shape[0], *noise[1:]])
        kept = ops.cast(own >= self.rate, inputs.dtype)
        return inputs * kept / (1 - self.rate)


@keras.saving.register_keras_serializable("tf_dpce")
class InferenceMode(keras.layers.Wrapper):
    """Runs a layer in inference mode, also where the model around it is trained.

    A `training=False` written into a functional model is no such promise: Keras replaces it by
    the `training=True` with which `fit` calls the model.

    Args:
        layer: the layer, or model, to run.
    """

    def call(self, inputs: Any) -> Any:
        """Returns what `layer` returns with `training=False`."""
        return self.layer(inputs, training=False)


@keras.saving.register_keras_serializable("tf_dpce")
class UnitLength(keras.layers.Layer):
    """Divides each vector `[B, D]` by its length: x / sqrt(1e-8 + sum x^2), the authors' code.

    Where it is made of members side by side, each is scaled to the length 1 / sqrt(M), so that the
    cosine of two vectors is the mean of their members' cosines.

    Args:
        members: M, which divides D.
    """

    def __init__(self, members: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.members = members

    def call(self, vectors: Any) -> Any:
        """Returns `[B, D]`."""
        width = member_width(vectors.shape[-1], self.members)
        parts = ops.reshape(vectors, (-1, self.members, width))
        squares = ops.sum(ops.square(parts), axis=-1, keepdims=True)
        return ops.reshape(parts * ops.rsqrt(self.members * (squares + 1e-8)), ops.shape(vectors))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "members": self.members}


@keras.saving.register_keras_serializable("tf_dpce")
class PairStack(keras.layers.Layer):
    """Stacks two `[B, D]` tensors, image first, into `[B, 2, D]`."""

    def call(self, pair: list[Any]) -> Any:
        """Returns `[B, 2, D]`."""
        return ops.stack(pair, axis=1)

    def compute_output_shape(
        self, input_shape: list[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        batch, width = input_shape[0]
        return (batch, 2, width)
