"""What a step cannot do without: its matrix products, and the bytes that its maps have to move."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from tf_dpce.models.dual_path import DualPath

# How often a layer reads or writes a map of the size of what it is given, forward and back.
_MOVES = {
    # Read for the sums, read and written; then it and the gradient read for the sums, again, and
    # a gradient written.
    keras.layers.BatchNormalization: 8,
    # Read and written; what it gave and the gradient read, a gradient written.
    keras.layers.ReLU: 5,
    # Two read and one written, once of the maps, once of the gradients where the paths part.
    keras.layers.Add: 6,
    # Read; read again for where the largest stood, and a gradient written.
    keras.layers.GlobalMaxPooling1D: 3,
}


@dataclass(frozen=True)
class Product:
    """A matrix product of a step, with those for its gradients.

    Attributes:
        rows: of what comes in: places of all pairs of a batch.
        inputs: its width.
        outputs: the width of what comes out.
        trained_before: whether a gradient goes on to what comes in.
    """

    rows: int
    inputs: int
    outputs: int
    trained_before: bool

    @property
    def multiply_adds(self) -> int:
        """Those forward, for the gradient of the weights, and for that of what comes in."""
        return (2 + self.trained_before) * self.rows * self.inputs * self.outputs


def step_products(network: DualPath, losses: set[str], batch_size: int) -> list[Product]:
    """Returns the products of dense layers and convolutions in a training step.

    Args:
        network: over backbone features.
        losses: the outputs that have one.
        batch_size: B.
    """
    logits = sum(name.endswith("_logits") for name in losses)
    # The exact classifier's matrix is [D, C].
    classifier = Product(batch_size, *network.classifier.kernel.shape, trained_before=True)
    towers = (network.image_tower, network.text_tower)
    return [p for tower in towers for p in _of_tower(tower, batch_size)] + [classifier] * logits


def step_multiply_adds(network: DualPath, losses: set[str]) -> int:
    """Counts the multiply-adds of a training step for one pair, in `step_products`."""
    return sum(product.multiply_adds for product in step_products(network, losses, 1))


def map_moves(network: DualPath, batch_size: int) -> Counter[int]:
    """Counts the reads and writes of whole maps in a training step, by the numbers of a map.

    Those of BatchNorm, ReLU, sums and pooling in both towers, each done by itself.
    """
    moves: Counter[int] = Counter()
    for layer in (*network.image_tower.layers, *network.text_tower.layers):
        for kind in _MOVES.keys() & {type(layer)}:
            given = keras.tree.flatten(layer.input)[0]
            moves[batch_size * math.prod(given.shape[1:])] += _MOVES[kind]
    return moves


def multiplying(products: Sequence[Product]) -> Callable[[], None]:
    """Returns a call that makes products of these shapes, one after the other."""
    operands = {product: _operands(product) for product in set(products)}

    def call() -> None:
        # Outside of a graph none can be left out, and each has all cores.
        for product in products:
            given, weights, gradient = operands[product]
            tf.matmul(given, weights)
            tf.matmul(given, gradient, transpose_a=True)
            if product.trained_before:
                tf.matmul(gradient, weights, transpose_b=True)
        tf.test.experimental.sync_devices()

    return call


def copying(moves: Counter[int]) -> Callable[[], None]:
    """Returns a call that moves as many bytes: each copy reads a map and writes one."""
    copies = [(tf.ones([size]), math.ceil(count / 2)) for size, count in moves.items()]

    def call() -> None:
        for numbers, count in copies:
            for _ in range(count):
                # The plainest operation that TensorFlow does not skip.
                tf.negative(numbers)
        tf.test.experimental.sync_devices()

    return call


def _of_tower(tower: keras.Model, batch_size: int) -> Iterator[Product]:
    trained_before = False
    for layer in tower.layers:
        if hasattr(layer, "kernel"):
            *window, inputs, outputs = layer.kernel.shape
            rows = batch_size * math.prod(layer.output.shape[1:-1])
            # A convolution is a product for each place of its window.
            for _ in range(math.prod(window)):
                yield Product(rows, inputs, outputs, trained_before)
        trained_before = trained_before or bool(layer.trainable_variables)


def _operands(product: Product) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    rows, inputs, outputs = product.rows, product.inputs, product.outputs
    shapes = ([rows, inputs], [inputs, outputs], [rows, outputs])
    return tuple(tf.random.stateless_normal(shape, seed=[0, 0]) for shape in shapes)
