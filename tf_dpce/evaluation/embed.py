"""Embeds a whole split with the encoders of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.errors import UserError
from tf_dpce.model import DualPath
from tf_dpce.towers.folding import folded
from tf_dpce.towers.trimming import trimming

Encode = Callable[[tf.Tensor], tf.Tensor]


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
) -> Embedded:
    """Embeds every picture of a dataset.

    Args:
        model: whose `image_encoder` is used.
        dataset: batches of dicts with `image`, float32 `[B, S, S, 3]`, and `instance`, int64 `[B]`.
        count: N, the number of pictures that the dataset holds.
        progress: called with (pictures done, N) after each batch.

    Raises:
        UserError: the dataset held more or fewer pictures than `count`.
    """
    encoder = model.image_encoder
    return embed(compiled(encoder), encoder.output_shape[-1], "image", dataset, count, progress)


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
        UserError: the dataset held more or fewer sentences than `count`.
    """
    encoder = model.text_encoder
    encode = compiled(encoder, trimming(model.text_tower))
    return embed(encode, encoder.output_shape[-1], "text", dataset, count, progress)


def compiled(encoder: keras.Model, prepare: Encode = tf.identity) -> Encode:
    """Returns a model as a function in inference mode: one trace for batches of all lengths.

    It answers with the weights that the model has now.

    Args:
        encoder: the model.
        prepare: what a batch goes through before it, in the same function.
    """
    return inference(folded(encoder), prepare)


def inference(encoder: keras.Model, prepare: Encode = tf.identity) -> Encode:
    """Returns the same of a model as it is, for one that does not change meanwhile."""
    place = encoder.inputs[0]
    signature = [tf.TensorSpec(place.shape, place.dtype)]
    return tf.function(
        lambda batch: encoder(prepare(batch), training=False), input_signature=signature
    )


def embed(
    encode: Encode,
    width: int,
    feature: str,
    dataset: tf.data.Dataset,
    count: int,
    progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Applies an encoder to every example of a dataset.

    Args:
        encode: of batches of examples to float32 `[B, D]`. The vectors are kept as they are.
        width: D.
        feature: name of the examples in a batch.
        dataset: batches of dicts with `feature` and `instance`, int64 `[B]`.
        count: N, the number of examples that the dataset holds.
        progress: called with (examples done, N) after each batch.

    Raises:
        UserError: the dataset held more or fewer examples than `count`.
    """
    vectors, instances = np.empty((count, width), np.float32), np.empty(count, np.int64)
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
        found = "more" if done > count else f"{done}"
        raise UserError(
            f"the manifest of the data is damaged, it counts {count} rows of {feature} where there "
            f"are {found}: run prepare again"
        )
    return Embedded(vectors, instances)
