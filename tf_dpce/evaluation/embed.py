"""Embeds whole splits with the towers of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.config import ImageConfig
from tf_dpce.data.input_pipeline import ALL, evaluation_captions, evaluation_images
from tf_dpce.data.manifest import Manifest
from tf_dpce.evaluation.tta import TestTimeAugmentation, image_towers
from tf_dpce.logging import tracked
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.fuse_batch_norm import folded, refold
from tf_dpce.models.layers import UnitLength
from tf_dpce.models.trimming import trimming
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

Encode = Callable[[tf.Tensor], tf.Tensor]
Batches = Iterable[Mapping[str, tf.Tensor]]


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of images or captions, and what they show.

    Attributes:
        vectors: float `[N, D]`, of unit length unless a querybank normalised them.
        instances: int64 `[N]`, the instance of each embedding.
    """

    vectors: np.ndarray
    instances: np.ndarray

    def rows(self, chosen: np.ndarray | slice) -> Embeddings:
        """Returns some of them."""
        return Embeddings(self.vectors[chosen], self.instances[chosen])

    def compared_with(self, others: Embeddings) -> tuple[np.ndarray, ...]:
        """Returns what `retrieval_metrics` takes: the vectors of both, and the instances of both.

        Example:
            >>> from tf_dpce.evaluation import retrieval_metrics
            >>> images = Embeddings(np.eye(3), np.arange(3))
            >>> retrieval_metrics(*images.compared_with(images))["rsum"]
            600.0
        """
        return self.vectors, others.vectors, self.instances, others.instances


class Encoders:
    """Both encoders of a model in training: their BatchNorm is fused, each is traced once.

    Every call uses the weights that the model has at that moment.

    Args:
        model: the model with `image_encoder` and `text_encoder`.

    Example:
        >>> encoders = Encoders(model)
        >>> before = encoders.images(image_batches)
        >>> model.set_weights([0.5 * weight for weight in model.get_weights()])
        >>> after = encoders.images(image_batches)  # of the new weights
    """

    def __init__(self, model: DualPath) -> None:
        self._model = model
        self._images, self._texts = folded(model.image_encoder), folded(model.text_encoder)
        self._encode_images = inference(self._images)
        self._encode_texts = inference(self._texts, trimming(model.text_tower))

    def images(self, batches: Batches) -> Embeddings:
        """Embeds batches of `image`, float32 `[B, S, S, 3]`, and `instance`, int64 `[B]`."""
        refold(self._images, self._model.image_encoder)
        return embed(self._encode_images, batches, "image")

    def texts(self, batches: Batches) -> Embeddings:
        """Embeds batches of `text`, int32 `[B, T]`, and `instance`, int64 `[B]`."""
        refold(self._texts, self._model.text_encoder)
        return embed(self._encode_texts, batches, "text")


class SplitEncoder:
    """Embeds splits of prepared data with test-time augmentation.

    Args:
        model: a trained model.
        tokenizer: the one that the model was trained with.
        image: the image settings that the model was trained with.
        augmentation: flip, sizes and precision.
        batch_size: number of images, or of captions, in a batch.

    Attributes:
        tokenizer: as given.
        augmentation: as given.
    """

    def __init__(
        self,
        model: DualPath,
        tokenizer: CaptionTokenizer,
        image: ImageConfig,
        augmentation: TestTimeAugmentation,
        batch_size: int = 64,
    ) -> None:
        self.tokenizer, self.augmentation = tokenizer, augmentation
        self._model, self._image, self._batch_size = model, image, batch_size

    @cached_property
    def _encode_images(self) -> dict[int, Encode]:
        """The image tower at each size; it takes seconds to make, so data are checked before."""
        towers = image_towers(self._model.image_tower, self._image.backbone, self.augmentation)
        return {size: inference(folded(tower)) for size, tower in towers.items()}

    @cached_property
    def _encode_texts(self) -> Encode:
        text_tower = self._model.text_tower
        return inference(folded(text_tower, self.augmentation.float16), trimming(text_tower))

    def embed(self, folder: Path, split: str, first: int = ALL) -> tuple[Embeddings, Embeddings]:
        """Returns the embeddings of the images and of the captions of a split, in their order.

        Args:
            folder: prepared data.
            split: name of the split.
            first: number of images to take, with their captions, from the start of the split.

        Raises:
            UserError: the model cannot be used with this augmentation.
        """
        info = Manifest.load(folder).splits[split]
        # How many captions the first images have is not known before they are read.
        images, captions = (info.images, info.captions) if first == ALL else (first, None)
        features, resize = [], self._image.resize
        for size, encode in self._encode_images.items():
            rows = evaluation_images(folder, split, size, self._batch_size, resize, first)
            rows = _shown(rows, f"{split} images of {size} pixels", images)
            features.append(embed(encode, rows, "image"))
        rows = evaluation_captions(folder, split, self.tokenizer, self._batch_size, first)
        texts = embed(self._encode_texts, _shown(rows, f"{split} captions", captions), "text")
        total, unit_length = sum(each.vectors for each in features), UnitLength()
        return (
            Embeddings(unit_length(total).numpy(), features[0].instances),
            Embeddings(unit_length(texts.vectors).numpy(), texts.instances),
        )


def _shown(batches: Batches, description: str, total: int | None) -> Batches:
    """Yields the batches, and shows how many of their `total` rows were worked on."""
    return tracked(batches, description, total, False, size=lambda batch: len(batch["instance"]))


def inference(model: keras.Model, prepare: Encode = tf.identity) -> Encode:
    """Returns a model as a TensorFlow function in inference mode.

    One trace serves batches of all lengths.

    Args:
        model: a model with one input.
        prepare: a function that is applied to each batch before the model.
    """
    first = model.inputs[0]
    encode = tf.function(
        lambda batch: model(prepare(batch), training=False),
        input_signature=[tf.TensorSpec(first.shape, first.dtype)],
    )
    # If several functions of this line are traced by their first calls, TensorFlow takes them for
    # one function that is traced again and again, and warns. It does not count this trace.
    encode.get_concrete_function()
    return encode


def embed(encode: Encode, batches: Batches, feature: str) -> Embeddings:
    """Applies an encoder to every batch.

    Args:
        encode: function from a batch of examples to float32 `[B, D]`.
        batches: one or more dicts with `feature` and `instance`, int64 `[B]`.
        feature: name of the examples in a batch.
    """
    vectors, instances = [], []
    for batch in batches:
        vectors.append(np.asarray(encode(batch[feature])))
        instances.append(np.asarray(batch["instance"]))
    return Embeddings(np.concatenate(vectors), np.concatenate(instances))
