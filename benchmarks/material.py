"""Random images and captions in memory, and the very step that `fit` makes with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.config import Config, StageConfig
from tf_dpce.data.caption_table import CaptionTable
from tf_dpce.data.feature_cache import FeatureCache
from tf_dpce.data.index_shuffle import IndexShuffle
from tf_dpce.data.input_pipeline import Batches
from tf_dpce.models.build import build_model
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.image_tower import network_of
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.training.model_factory import to_inputs_and_targets

_CAPTIONS = 5
_LENGTHS = (5, 16)
_IMAGE_SIDES = (375, 500)
_WORDS_IN_CAPTION = 10
# More steps than anybody times.
_STEPS = 1_000_000


def random_model(config: Config, words: int, classes: int) -> DualPath:
    """Builds the model of a configuration from random weights, the backbone's too."""
    keras.utils.set_random_seed(config.seed)
    model = build_model(replace(config, weights="none"), words, classes)
    # Keras's initial weights, with averages of BatchNorm that nobody has measured, would leave
    # nothing of the input behind fifty layers.
    for layer in network_of(model.image_backbone).layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            kernel = layer.kernel.numpy()
            # A depthwise convolution sees one channel.
            axes = 2 if isinstance(layer, keras.layers.DepthwiseConv2D) else 3
            wanted = np.sqrt(2 / np.prod(kernel.shape[:axes]))
            layer.kernel.assign(kernel * (wanted / kernel.std()))
    return model


def random_tokenizer(config: Config, words: int) -> CaptionTokenizer:
    """Returns the tokenizer of a configuration, with as many different words."""
    vocabulary = [f"word{number}" for number in range(words)]
    return CaptionTokenizer(vocabulary, config.text.max_length, lowercase=True)


def random_captions(count: int, words: int) -> list[str]:
    """Returns captions of ten words that `random_tokenizer` knows."""
    numbers = np.random.default_rng(words).integers(words, size=(count, _WORDS_IN_CAPTION))
    return [" ".join(f"word{number}" for number in row) for row in numbers]


def random_images(count: int, seed: int) -> list[bytes]:
    """Returns JPEG files of a photograph's sides and about its bytes."""
    draw = np.random.default_rng(seed)
    smooth = tf.image.resize(draw.uniform(0, 255, (count, 24, 32, 3)), _IMAGE_SIDES, "bicubic")
    pixels = tf.clip_by_value(smooth + draw.uniform(-12, 12, smooth.shape), 0, 255)
    return [tf.io.encode_jpeg(image).numpy() for image in tf.cast(pixels, tf.uint8)]


def random_cache(config: Config, width: int, words: int, classes: int) -> FeatureCache:
    """Returns features and captions of as many images as there are classes.

    Args:
        config: of the run.
        width: F, of the backbone's features.
        words: V, the number of words.
        classes: C, one an image; each has five captions of 5 to 15 words.
    """
    draw = np.random.default_rng(config.seed)
    places, captions = config.text.max_length, classes * _CAPTIONS
    ids = draw.integers(1, words + 1, (captions, places)).astype(np.int32)
    ids[np.arange(places) >= draw.integers(*_LENGTHS, (captions, 1))] = 0
    table = CaptionTable(ids, _CAPTIONS * np.arange(classes + 1), np.arange(classes))
    # Behind a backbone's last ReLU nothing is negative.
    features = np.abs(draw.standard_normal((classes, 1, width), np.float32))
    return FeatureCache(features.astype(np.float16), table)


def random_batches(cache: FeatureCache, config: Config, stage: StageConfig) -> Batches:
    """Returns the batches of a stage without an end.

    Where the stage's backbone is not cached, the images are pixels, the same in every batch:
    reading and decoding are not part of the step.
    """
    order = IndexShuffle(config.seed, len(cache.captions.instances), stage.batch_size)
    batches = cache.training_batches(config.text, order, 0, _STEPS)
    if stage.backbone != "cached":
        side = config.image.input_size
        shape = (stage.batch_size, side, side, 3)
        pixels = tf.constant(np.random.default_rng(config.seed).uniform(0, 255, shape), tf.float32)
        batches = batches.map(lambda batch: {**batch, "image": pixels})
    return batches.map(partial(to_inputs_and_targets, stage.loss))


def fit_step(
    network: DualPath, batches: Batches, strategy: tf.distribute.Strategy
) -> Callable[[], None]:
    """Returns a call that makes one step of `fit` and returns once the devices are done.

    Args:
        network: compiled.
        batches: without an end.
        strategy: that the network was made under.
    """
    # A whole `fit` of one step builds the metrics and traces the step that later calls run.
    network.fit(batches.take(1), verbose=0, shuffle=False)
    iterator = iter(strategy.experimental_distribute_dataset(batches))

    def step() -> None:
        network.train_function(iterator)
        tf.test.experimental.sync_devices()

    return step
