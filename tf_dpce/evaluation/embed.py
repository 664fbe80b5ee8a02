"""Embeds a whole split with the encoders of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.model import DualPath
from tf_dpce.towers.layers import UnitLength


@dataclass(frozen=True)
class Embedded:
    """Vectors of pictures or sentences, and what they show.

    Attributes:
        vectors: float32 `[N, D]`, of unit length.
        instances: int64 `[N]`, the picture, or the person, of each vector.
    """

    vectors: np.ndarray
    instances: np.ndarray


def embed_images(
    model: DualPath,
    dataset: tf.data.Dataset,
    count: int,
    progress: Callable[[int, int], None] | None = None,
    flip: bool = False,
) -> Embedded:
    """Embeds every picture of a dataset.

    Args:
        model: whose `image_encoder` is used.
        dataset: batches of dicts with `image`, float32 `[B, S, S, 3]`, and `instance`, int64 `[B]`.
        count: N, the number of pictures that the dataset holds.
        progress: called with (pictures done, N) after each batch.
        flip: whether the feature of the mirrored picture is added before the vector is scaled to
            unit length, as in the authors' test. Twice the work.

    Raises:
        ValueError: the dataset held more or fewer pictures than `count`.
    """
    encoder = _encoder_of_both_sides(model) if flip else model.image_encoder
    return _embed(encoder, "image", dataset, count, progress)


def embed_texts(
    model: DualPath,
    dataset: tf.data.Dataset,
    count: int,
    progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Embeds every sentence of a dataset.

    Args:
        model: whose `text_encoder` is used.
        dataset: batches of dicts with `text`, int32 `[B, T]`, and `instance`, int64 `[B]`.
        count: N, the number of sentences that the dataset holds.
        progress: called with (sentences done, N) after each batch.

    Raises:
        ValueError: the dataset held more or fewer sentences than `count`.
    """
    return _embed(model.text_encoder, "text", dataset, count, progress)


def _encoder_of_both_sides(model: DualPath) -> keras.Model:
    pixels = model.input["image"]
    mirrored = keras.ops.flip(pixels, axis=2)
    feature = model.image_tower(pixels) + model.image_tower(mirrored)
    return keras.Model(pixels, UnitLength()(feature))


def _embed(
    encoder: keras.Model,
    feature: str,
    dataset: tf.data.Dataset,
    count: int,
    progress: Callable[[int, int], None] | None,
) -> Embedded:
    # One trace for all batches, the shorter last one included.
    place = encoder.inputs[0]
    signature = [tf.TensorSpec(place.shape, place.dtype)]
    encode = tf.function(lambda batch: encoder(batch, training=False), input_signature=signature)
    vectors = np.empty((count, encoder.output_shape[-1]), np.float32)
    instances = np.empty(count, np.int64)
    done = 0
    for batch in dataset:
        start, done = done, done + len(batch["instance"])
        if done > count:
            break
        vectors[start:done] = encode(batch[feature]).numpy()
        instances[start:done] = batch["instance"].numpy()
        if progress is not None:
            progress(done, count)
    if done != count:
        raise ValueError(f"The dataset does not hold {count} examples. Received: {done}")
    return Embedded(vectors, instances)
