"""The validation images and captions that are shown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import itemgetter
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_dpce.config import Resize
from tf_dpce.data.input_pipeline import RecordReader, caption_groups
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.plain_image import image_pixels
from tf_dpce.preprocessing.status import Limits

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
        names: the id of each image.
        image_of: int64 `[M]`, the number of each caption's image.
    """

    def __init__(self, data: Path, resize: Resize) -> None:
        self.captions: list[str] = []
        self.names: list[str] = []
        counts = []
        for batch in caption_groups(data, _SPLIT, _BATCH):
            self.captions += _decoded(batch["captions"].flat_values)
            self.names += _decoded(batch["image_id"])
            counts += batch["captions"].row_lengths().numpy().tolist()
        self.image_of = np.repeat(np.arange(len(counts)), counts)
        self._reader, self._resize = RecordReader(data, _SPLIT), resize
        self._thumbnails: dict[int, Image.Image] = {}

    def load(self, numbers: Iterable[int]) -> None:
        """Reads images whose thumbnails are wanted next: together they are read faster."""
        new = sorted(set(numbers) - self._thumbnails.keys())
        if not new:
            return
        rows = tf.data.Dataset.from_tensor_slices(new).map(self._reader).map(itemgetter("image"))
        files = chain.from_iterable(rows.batch(_BATCH).as_numpy_iterator())
        for number, contents in zip(new, files, strict=True):
            # Pillow needs no graph, whose tracing would take longer than all of them.
            _, pixels = image_pixels(contents, SIDE, self._resize, Limits())
            if pixels is None:  # Pillow refuses a few headers that TensorFlow reads.
                pixels = evaluation_pixels(tf.constant(contents), SIDE, self._resize).numpy()
            self._thumbnails[number] = Image.fromarray(np.round(pixels).astype(np.uint8))

    def thumbnail(self, number: int) -> Image.Image:
        """Returns an image as the model sees it, 96 pixels square."""
        self.load([number])
        return self._thumbnails[number]


def _decoded(texts: tf.Tensor) -> list[str]:
    return [text.decode(errors="replace") for text in texts.numpy().tolist()]
