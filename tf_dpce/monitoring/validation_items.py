"""The validation images and captions that are shown."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_dpce.config import Resize
from tf_dpce.data.input_pipeline import RecordReader, caption_groups
from tf_dpce.preprocessing.image import evaluation_pixels

SIDE = 96  # of a thumbnail, in pixels
_SPLIT = "val"
_BATCH = 256


class ValidationItems:
    """Images and captions of the validation split, in the order of their embeddings.

    Args:
        data: folder of prepared data.
        resize: how the model sees images.

    Attributes:
        captions: all captions.
        image_of: int64 `[M]`, the number of each caption's image.
    """

    def __init__(self, data: Path, resize: Resize) -> None:
        self.captions: list[str] = []
        counts = []
        for batch in caption_groups(data, _SPLIT, _BATCH):
            texts = batch["captions"].flat_values.numpy().tolist()
            self.captions += [text.decode(errors="replace") for text in texts]
            counts += batch["captions"].row_lengths().numpy().tolist()
        self.image_of = np.repeat(np.arange(len(counts)), counts)
        self._data, self._resize = data, resize
        self._made: dict[int, tuple[str, Image.Image]] = {}

    def name(self, number: int) -> str:
        """Returns the id of an image."""
        return self._item(number)[0]

    def thumbnail(self, number: int) -> Image.Image:
        """Returns an image as the model sees it, 96 pixels square."""
        return self._item(number)[1]

    def _item(self, number: int) -> tuple[str, Image.Image]:
        if number not in self._made:
            name, pixels = self._read(tf.constant(number, tf.int64))
            shown = Image.fromarray(pixels.numpy())
            self._made[number] = (name.numpy().decode(errors="replace"), shown)
        return self._made[number]

    @cached_property
    def _read(self) -> tf.types.experimental.GenericFunction:
        reader = RecordReader(self._data, _SPLIT)

        def read(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            record = reader(number)
            pixels = evaluation_pixels(record["image"], SIDE, self._resize)
            return record["image_id"], tf.saturate_cast(tf.round(pixels), tf.uint8)

        return tf.function(read, input_signature=[tf.TensorSpec([], tf.int64)])
