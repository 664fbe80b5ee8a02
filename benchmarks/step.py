"""How much of the machine a step of stage 1 uses: its towers against a plain matrix product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from benchmarks.material import fit_step, random_batches, random_cache, random_model
from benchmarks.timing import Row, interleave, peak_memory, row
from tf_dpce.config import Config
from tf_dpce.models.dual_path import LOGITS, DualPath
from tf_dpce.training.distributed import mirrored_strategy
from tf_dpce.training.model_factory import stage_trainer
from tf_dpce.training.objective import loss_weights

_PRODUCT = "float32 matrix product"
_UNIT = "billion multiply-adds a second"


def measure(
    config: Config,
    *,
    batch_size: int = 256,
    classes: int = 6_000,
    words: int = 7_400,
    side: int = 2_048,
    rounds: int = 8,
) -> list[Row]:
    """Times a step over cached features, its update, and a matrix product of as much work.

    The same step on one batch in memory shows what the feature cache costs.

    Args:
        config: its towers and its stage 1 are taken.
        batch_size: B.
        classes: number of images and classes; the defaults are of Flickr8k's size.
        words: size of the vocabulary.
        side: side of the square matrices that are multiplied.
        rounds: number of rounds.
    """
    strategy = mirrored_strategy()
    stage = replace(config.stage1, batch_size=batch_size, backbone="cached")
    with strategy.scope():
        network = stage_trainer(stage, random_model(config, words, classes), steps_per_epoch=1)
    cache = random_cache(config, network.image_tower.input_shape[-1], words, classes)
    work = batch_size * step_multiply_adds(network, set(loss_weights(stage.loss)))
    products = math.ceil(work / side**3)
    batches = random_batches(cache, config, stage)
    calls = {
        "step": fit_step(network, batches, strategy),
        "one batch": fit_step(network, batches.take(1).cache().repeat(), strategy),
        "update": _update(network, strategy),
        _PRODUCT: _matrix_products(side, products),
    }
    seconds = interleave(calls, rounds)
    step, update = seconds["step"], seconds["update"]
    rate, ceiling = work / (step - update) / 1e9, products * side**3 / seconds[_PRODUCT] / 1e9
    return [
        row("step", "ms", 1000 * step),
        row("step", "pairs a second", batch_size / step),
        row("step on one batch in memory", "ms", 1000 * seconds["one batch"], "step", 1000 * step),
        row("the optimizer's update", "ms", 1000 * update, "step", 1000 * step),
        row("multiply-adds of a step", "billion", [work / 1e9]),
        row(_PRODUCT, _UNIT, ceiling),
        row("step without its update", _UNIT, rate, _PRODUCT, ceiling),
        peak_memory(),
    ]


def step_multiply_adds(network: DualPath, losses: set[str]) -> int:
    """Counts the multiply-adds of a training step for one pair.

    Those of dense layers and convolutions forward, for the gradient of the weights, and for the
    gradient of the input if anything before is trained.

    Args:
        network: model over backbone features, with the exact classifier.
        losses: outputs that have a loss.
    """
    logits = sum(name in LOGITS for name in losses)
    towers = _of_tower(network.image_tower) + _of_tower(network.text_tower)
    return towers + logits * 3 * math.prod(network.classifier.kernel.shape)


def _of_tower(tower: keras.Model) -> int:
    total, trained_before = 0, False
    for layer in tower.layers:
        if hasattr(layer, "kernel"):
            forward = math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
            total += (2 + trained_before) * forward
        trained_before = trained_before or bool(layer.trainable_variables)
    return total


def _update(network: DualPath, strategy: tf.distribute.Strategy) -> Callable[[], None]:
    """Returns the optimizer's update alone, of gradients that are there already."""
    variables = network.trainable_variables
    gradients = [tf.zeros(variable.shape) for variable in variables]

    def on_replica(gradients: list[tf.Tensor]) -> None:
        # Copies stand on the replica's device, as gradients do that are computed there.
        network.optimizer.apply([tf.identity(gradient) for gradient in gradients], variables)

    @tf.function
    def update(gradients: list[tf.Tensor]) -> None:
        strategy.run(on_replica, [gradients])

    def call() -> None:
        update(gradients)
        tf.test.experimental.sync_devices()

    return call


def _matrix_products(side: int, count: int) -> Callable[[], None]:
    """Returns products of square matrices, each of the one before, so that none can be left out."""
    draw = np.random.default_rng(0)
    # Entries of variance 1 / side keep those of the product near 1.
    first = tf.constant(draw.standard_normal((side, side)), tf.float32)
    factor = tf.constant(draw.standard_normal((side, side)) / math.sqrt(side), tf.float32)

    @tf.function
    def products(matrix: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(count):
            matrix = tf.matmul(matrix, factor)
        return matrix

    def call() -> None:
        products(first, factor)
        tf.test.experimental.sync_devices()

    return call
