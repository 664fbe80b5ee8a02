"""What it costs to mine negatives: a step of stage 2 with each kind of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import tensorflow as tf

from benchmarks.material import fit_step, random_batches, random_cache, random_model
from benchmarks.timing import Report, Row, interleave, peak_memory, row, silent
from tf_dpce.config import Config, LossConfig, StageConfig
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.distributed import mirrored_strategy
from tf_dpce.training.features import FeatureCache
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.model_factory import stage_trainer

_NEGATIVES = ("given", "mined", "batch")
_SETTINGS = {"cached": "cached", "trained": "end to end"}


def measure(
    config: Config,
    progress: Report = silent,
    *,
    batch_size: int = 32,
    candidates: int = 256,
    classes: int = 6_000,
    words: int = 7_400,
    rounds: int = 20,
    image_rounds: int = 6,
) -> list[Row]:
    """Times a step with given, with mined and with in-batch negatives.

    First over cached features, then with the backbone trained end to end on pixels in memory. The
    losses have the recipe's weights.

    Args:
        config: whose towers and optimizer of stage 2 are taken.
        progress: called with the rounds done and their total.
        batch_size: B, the recipe's.
        candidates: captions to mine from, the recipe's.
        classes: images and classes; the defaults are of Flickr8k's size.
        words: of the vocabulary.
        rounds: timed over cached features.
        image_rounds: timed end to end.
    """
    strategy = mirrored_strategy()
    with strategy.scope():
        model = random_model(config, words, classes)
    width = model.image_tower.get_layer("image_head").input_shape[-1]
    cache = random_cache(config, width, words, classes)
    rows, total = [], rounds + image_rounds + 2
    for backbone, before, count in (("cached", 0, rounds), ("trained", rounds + 1, image_rounds)):
        stage = replace(config.stage2, batch_size=batch_size, backbone=backbone)
        losses = {n: LossConfig(1.0, 0.1, 2.0, "ranking", n, candidates) for n in _NEGATIVES}
        arms = {
            negatives: _step(replace(stage, loss=loss), config, model, cache, strategy)
            for negatives, loss in losses.items()
        }
        rows += _timed(
            _SETTINGS[backbone], arms, count, lambda n, _, b=before: progress(b + n, total)
        )
    return [*rows, peak_memory()]


def _step(
    stage: StageConfig,
    config: Config,
    model: DualPath,
    cache: FeatureCache,
    strategy: tf.distribute.Strategy,
) -> Callable[[], None]:
    mined = None
    if stage.loss.mines_negatives:
        mined = HardNegatives(cache.captions, stage.loss.candidates, config.text.shift, config.seed)
    with strategy.scope():
        network = stage_trainer(stage, model, steps_per_epoch=1, hard_negatives=mined)
    return fit_step(network, random_batches(cache, config, stage), strategy)


def _timed(
    setting: str, arms: dict[str, Callable[[], None]], rounds: int, progress: Report
) -> list[Row]:
    seconds = interleave(arms, rounds, progress=progress)
    base = f"{setting}, {_NEGATIVES[0]}"
    given = 1000 * seconds[_NEGATIVES[0]]
    return [
        row(f"{setting}, {name}", "ms a step", 1000 * values, base, given)
        for name, values in seconds.items()
    ]
