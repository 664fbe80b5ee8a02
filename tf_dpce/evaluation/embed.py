"""Embeds a whole split with the encoders of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.errors import UserError
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.fuse_batch_norm import folded, refold
from tf_dpce.models.trimming import trimming

Encode = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Embedded:
    """Vectors of images or sentences, and what they show.

    Attributes:
        vectors: float `[N, D]`, of unit length unless `hubs.discounted` made them.
        instances: int64 `[N]`, the image, or the person, of each vector.
    """

    vectors: np.ndarray
    instances: np.ndarray


class Encoders:
    """Both encoders of a model that is still trained, folded and traced once.

    Whenever they are asked they answer with the weights that the model has then.

    Args:
        model: whose `image_encoder` and `text_encoder` they are.

    Example:
        >>> encoders = Encoders(model)
        >>> before = encoders.images(images, 100)
        >>> model.fit(batches)
        >>> after = encoders.images(images, 100)
    """

    def __init__(self, model: DualPath) -> None:
        self._model = model
        self._images, self._texts = folded(model.image_encoder), folded(model.text_encoder)
        self._encode_images = inference(self._images)
        self._encode_texts = inference(self._texts, trimming(model.text_tower))

    def images(
        self,
        dataset: tf.data.Dataset,
        count: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> Embedded:
        """Embeds every image of a dataset.

        Args:
            dataset: batches of dicts with `image`, float32 `[B, S, S, 3]`, and `instance`, int64
                `[B]`.
            count: N, the number of images that the dataset holds.
            progress: called with (images done, N) after each batch.

        Raises:
            UserError: the dataset held more or fewer images than `count`.
        """
        refold(self._images, self._model.image_encoder)
        width = self._images.output_shape[-1]
        return embed(self._encode_images, width, "image", dataset, count, progress)

    def texts(
        self,
        dataset: tf.data.Dataset,
        count: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> Embedded:
        """Embeds every sentence of a dataset.

        Args:
            dataset: batches of dicts with `text`, int32 `[B, T]`, and `instance`, int64 `[B]`.
            count: N, the number of sentences that the dataset holds.
            progress: called with (sentences done, N) after each batch.

        Raises:
            UserError: the dataset held more or fewer sentences than `count`.
        """
        refold(self._texts, self._model.text_encoder)
        width = self._texts.output_shape[-1]
        return embed(self._encode_texts, width, "text", dataset, count, progress)


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
    encode = tf.function(
        lambda batch: encoder(prepare(batch), training=False), input_signature=signature
    )
    # Traced at once, which TensorFlow does not count: where a few functions of this line are traced
    # by their first calls it takes them for one that is traced over and over, and warns.
    encode.get_concrete_function()
    return encode


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
