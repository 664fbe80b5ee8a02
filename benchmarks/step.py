"""How much of the machine a step of stage 1 uses: its towers against a plain matrix product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from benchmarks.limits import copying, map_moves, multiplying, step_products
from benchmarks.material import fit_step, random_batches, random_cache, random_model
from benchmarks.timing import Report, Row, interleave, peak_memory, row, silent
from tf_dpce.config import Config, StageConfig
from tf_dpce.data.input_pipeline import Batches
from tf_dpce.losses import InstanceLoss
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.distributed import mirrored_strategy
from tf_dpce.training.model_factory import loss_weights, stage_trainer
from tf_dpce.training.optimizers import stage_optimizer
from tf_dpce.training.schedule import stage_schedule

_PRODUCT = "float32 matrix product"
_ONE_BATCH = "step on one batch in memory"
_TEXT_SIDE = "text side alone"
_OWN_PRODUCTS = "its own matrix products"
_COPIES = "copies of as many bytes"


def measure(
    config: Config,
    progress: Report = silent,
    *,
    batch_size: int = 256,
    classes: int = 6_000,
    words: int = 7_400,
    side: int = 2_048,
    rounds: int = 8,
) -> list[Row]:
    """Times a step over cached features, its parts, and what the machine can do at best.

    Its parts are the same step without the cache, on one batch over and over; that of the text
    tower and the classifier alone, without images; and its update. The machine's best is a square
    product of as many multiply-adds, the step's products at their own shapes, and plain copies of
    as many bytes as its maps have to move.

    Args:
        config: whose towers and stage 1 are taken.
        progress: called with the rounds done and their total.
        batch_size: B.
        classes: images and classes; the defaults are of Flickr8k's size.
        words: of the vocabulary.
        side: of the square matrices that are multiplied.
        rounds: that are timed.
    """
    strategy = mirrored_strategy()
    stage = replace(config.stage1, batch_size=batch_size, backbone="cached")
    with strategy.scope():
        model = random_model(config, words, classes)
        network = stage_trainer(stage, model, steps_per_epoch=1)
    width = network.image_tower.input_shape[-1]
    cache = random_cache(config, width, words, classes)
    own = step_products(network, set(loss_weights(stage.loss)), batch_size)
    work, moves = sum(product.multiply_adds for product in own), map_moves(network, batch_size)
    products = math.ceil(work / side**3)
    batches = random_batches(cache, config, stage)
    one_batch = batches.take(1).cache().repeat()
    arms = {
        "step": fit_step(network, batches, strategy),
        _ONE_BATCH: fit_step(network, one_batch, strategy),
        _TEXT_SIDE: _text_side(model, stage, one_batch, strategy),
        "update": _update(network, strategy),
        _PRODUCT: _matrix_products(side, products),
        _OWN_PRODUCTS: multiplying(own),
        _COPIES: copying(moves),
    }
    seconds = interleave(arms, rounds, progress=progress)
    moved = 4 * sum(size * count for size, count in moves.items())
    return [
        *_rows(seconds, batch_size, work, products * side**3),
        *_limits(seconds, work, moved),
        peak_memory(),
    ]


def _text_side(
    model: DualPath, stage: StageConfig, batches: Batches, strategy: tf.distribute.Strategy
) -> Callable[[], None]:
    """Returns a step of the instance loss of sentences, with the model's own layers."""
    with strategy.scope():
        alone = keras.Model(model.input["text"], model.output["text_logits"])
        optimizer = stage_optimizer(stage, stage_schedule(stage, steps_per_epoch=1), model)
        optimizer.build(alone.trainable_variables)
        alone.compile(optimizer, InstanceLoss(), jit_compile=False)
    instances = tf.range(stage.batch_size, dtype=tf.int64)
    return fit_step(alone, batches.map(lambda inputs, _: (inputs["text"], instances)), strategy)


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


def _rows(
    seconds: dict[str, np.ndarray], batch_size: int, work: int, work_of_products: int
) -> list[Row]:
    step, update = seconds["step"], seconds["update"]
    rate, ceiling = work / (step - update) / 1e9, work_of_products / seconds[_PRODUCT] / 1e9
    unit = "billion multiply-adds a second"
    return [
        row("step", "ms", 1000 * step),
        row("step", "pairs a second", batch_size / step),
        row(_ONE_BATCH, "ms", 1000 * seconds[_ONE_BATCH], "step", 1000 * step),
        row(_TEXT_SIDE, "ms", 1000 * seconds[_TEXT_SIDE], "step", 1000 * step),
        row("the optimizer's update", "ms", 1000 * update, "step", 1000 * step),
        row("multiply-adds of a step", "billion", [work / 1e9]),
        row(_PRODUCT, unit, ceiling),
        row("step without its update", unit, rate, _PRODUCT, ceiling),
    ]


def _limits(seconds: dict[str, np.ndarray], work: int, moved: int) -> list[Row]:
    """Returns what the step's least work takes by itself; what is left over is the step's own."""
    step, products, copies = 1000 * seconds["step"], seconds[_OWN_PRODUCTS], seconds[_COPIES]
    least = products + copies + seconds["update"]
    return [
        row(_OWN_PRODUCTS, "ms", 1000 * products, "step", step),
        row(_OWN_PRODUCTS, "billion multiply-adds a second", work / products / 1e9),
        row("bytes that its maps must move", "GiB", [moved / 2**30]),
        row(_COPIES, "ms", 1000 * copies, "step", step),
        row("products, copies and update", "ms", 1000 * least, "step", step),
    ]
