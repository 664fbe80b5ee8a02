"""What a step of stage 1 costs, and what the feature cache has of it."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.material import fit_step, random_batches, random_cache, random_model
from benchmarks.timing import Row, interleave, peak_memory, row
from tf_dpce.config import Config
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
    """Times a step over cached features.

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
    }
    seconds = interleave(calls, rounds)
    step = seconds["step"]
    rows = [row(name, "ms", 1000 * taken, "step", 1000 * step) for name, taken in seconds.items()]
    return [*rows, row("step", "pairs a second", batch_size / step), peak_memory()]
