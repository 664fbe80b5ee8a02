"""What a step of stage 1 costs, and what the feature cache and the update have of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import tensorflow as tf

from benchmarks.material import fit_step, random_batches, random_cache, random_model
from benchmarks.timing import Row, interleave, peak_memory, row
from tf_dpce.config import Config
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.distributed import mirrored_strategy
from tf_dpce.training.model_factory import stage_trainer


def measure(
    config: Config,
    *,
    batch_size: int = 256,
    classes: int = 6_000,
    words: int = 7_400,
    rounds: int = 8,
) -> list[Row]:
    """Times a step over cached features, and its update.

    The same step on one batch in memory shows what the feature cache costs.

    Args:
        config: its towers and its stage 1 are taken.
        batch_size: B.
        classes: number of images and classes; the defaults are of Flickr8k's size.
        words: size of the vocabulary.
        rounds: number of rounds.
    """
    strategy = mirrored_strategy()
    stage = replace(config.stage1, batch_size=batch_size, backbone="cached")
    with strategy.scope():
        network = stage_trainer(stage, random_model(config, words, classes), steps_per_epoch=1)
    cache = random_cache(config, network.image_tower.input_shape[-1], words, classes)
    batches = random_batches(cache, config, stage)
    calls = {
        "step": fit_step(network, batches, strategy),
        "step on one batch in memory": fit_step(
            network, batches.take(1).cache().repeat(), strategy
        ),
        "the optimizer's update": _update(network, strategy),
    }
    seconds = interleave(calls, rounds)
    step = seconds["step"]
    rows = [row(name, "ms", 1000 * taken, "step", 1000 * step) for name, taken in seconds.items()]
    return [*rows, row("step", "pairs a second", batch_size / step), peak_memory()]


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
