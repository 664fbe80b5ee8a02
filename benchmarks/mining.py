"""What it costs to mine negatives: a step of stage 2 with each kind of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import tensorflow as tf

from benchmarks.material import fit_step, random_batches, random_cache, random_model
from benchmarks.timing import Row, interleave, peak_memory, step_rows
from tf_dpce.config import Config, LossConfig, StageConfig
from tf_dpce.data.feature_cache import FeatureCache
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.distributed import mirrored_strategy
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.model_factory import stage_trainer

_SETTINGS = {"cached": "cached", "trained": "end to end"}


def measure(
    config: Config,
    *,
    batch_size: int = 32,
    candidates: int = 256,
    classes: int = 6_000,
    words: int = 7_400,
    rounds: int = 20,
    image_rounds: int = 6,
) -> list[Row]:
    """Times a step with paired, with mined and with in-batch negatives.

    First over cached features, then with the backbone trained end to end on pixels in memory. The
    losses have the recipe's weights.

    Args:
        config: its towers and its optimizer of stage 2 are taken.
        batch_size: B, the recipe's.
        candidates: number of captions to mine from, the recipe's.
        classes: number of images and classes; the defaults are of Flickr8k's size.
        words: size of the vocabulary.
        rounds: number of rounds over cached features.
        image_rounds: number of rounds end to end.
    """
    strategy = mirrored_strategy()
    with strategy.scope():
        model = random_model(config, words, classes)
    width = model.image_head.input_shape[-1]
    cache, rows = random_cache(config, width, words, classes), []
    for backbone, count in (("cached", rounds), ("trained", image_rounds)):
        stage = replace(config.stage2, batch_size=batch_size, backbone=backbone)
        calls = {}
        for negatives in ("paired", "mined", "batch"):
            loss = LossConfig(1.0, 0.1, 2.0, "ranking", negatives, candidates)
            step = _step(replace(stage, loss=loss), config, model, cache, strategy)
            calls[f"{_SETTINGS[backbone]}, {negatives}"] = step
        rows += step_rows(interleave(calls, count))
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
