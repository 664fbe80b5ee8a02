"""Features of a frozen backbone, computed once and kept beside the prepared data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.config import ImageConfig, TextConfig
from tf_dpce.data.caption_table import CaptionTable, captions_of_images, encode_captions
from tf_dpce.data.index_shuffle import CAPTION, SHIFT, VIEW, IndexShuffle, pick
from tf_dpce.data.input_pipeline import Batches, Captions, view_batches
from tf_dpce.data.manifest import Manifest
from tf_dpce.files import publish_file, remove_stale, sha256_lines
from tf_dpce.logging import check_stop, progress
from tf_dpce.preprocessing.augment import is_augmented
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer, position_shift

_BATCH = 64

Encode = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class FeatureCache:
    """Backbone features and captions of a split.

    Attributes:
        features: float16 `[N, views, F]`, mapped from disk; view 0 is the plain image.
        captions: captions of the same images in the same order.
    """

    features: np.ndarray
    captions: CaptionTable

    def training_batches(
        self,
        text: TextConfig,
        order: IndexShuffle,
        start: int,
        stop: int,
        captions: Captions | None = None,
    ) -> Batches:
        """Returns batches as `input_pipeline.training_batches` does, `image` being `[R, F]`."""
        views, width = self.features.shape[1:]
        instances_of, own = tf.constant(self.captions.instances), captions_of_images(self.captions)

        def batch(indices: tf.Tensor, draws: tf.Tensor) -> dict[str, tf.Tensor]:
            places = [indices, pick(draws[:, VIEW], tf.constant(views))]
            features = tf.ensure_shape(
                tf.numpy_function(self._take, places, tf.float32), [order.rows, width]
            )
            instances, draw = tf.gather(instances_of, indices), draws[:, CAPTION]
            ids = captions(instances, draw) if captions else own(indices, draw)
            ids = position_shift(ids, draws[:, SHIFT]) if text.shift else ids
            return {"image": features, "text": ids, "instance": instances}

        return order.steps(start, stop).map(batch, num_parallel_calls=2).prefetch(4)

    def evaluation_images(self, batch_size: int) -> Batches:
        """Returns the plain view of every image once, as `evaluation_images` does."""
        plain = np.ascontiguousarray(self.features[:, 0]).astype(np.float32)
        rows = {"image": plain, "instance": self.captions.instances}
        return tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)

    def _take(self, indices: np.ndarray, views: np.ndarray) -> np.ndarray:
        return self.features[indices, views].astype(np.float32)


def cached_features(
    backbone: keras.Model,
    data: Path,
    split: str,
    image: ImageConfig,
    tokenizer: CaptionTokenizer,
    views: int,
    compiled: Callable[[keras.Model], Encode],
) -> FeatureCache:
    """Returns the features of a split, from `DATA/features/` or computed and left there.

    The name of the file holds a digest of everything that the features depend on: the split's
    shards, the backbone, its weights and precision, the size, resizing and augmentation of images,
    and the number of views. Captions are encoded each time, which is cheap.

    Args:
        backbone: model from pixels to features `[B, F]`.
        data: folder of prepared data.
        split: name of the split.
        image: size and augmentation of images.
        tokenizer: tokenizer of captions.
        views: number of views of each image: the plain one, then augmented ones.
        compiled: makes of the backbone a function that computes features.

    Raises:
        Stopped: a stop was requested; nothing is left behind.
    """
    path = features_path(backbone, data, split, image, views)
    captions = encode_captions(data, split, tokenizer)
    with suppress(FileNotFoundError, EOFError, ValueError):  # none, or one that was cut short
        return FeatureCache(np.load(path, mmap_mode="r"), captions)
    remove_stale(path.parent)
    images, encode = Manifest.load(data).splits[split].images, compiled(backbone)
    with publish_file(path) as temporary, progress(f"{split} images in the backbone") as display:
        features = new_map(temporary, (images, views, backbone.output_shape[-1]))
        for view in range(views):
            done = 0
            for pixels in view_batches(data, split, image, view, _BATCH):
                features[done : done + len(pixels), view] = encode(pixels).numpy()
                done += len(pixels)
                display.update(view * images + done, total=views * images)
                check_stop("stopped while features were computed: give the same command again")
        features.flush()
    return FeatureCache(np.load(path, mmap_mode="r"), captions)


def new_map(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Makes a float16 array of a file, whose bytes are reserved.

    Args:
        path: the file.
        shape: shape of the array.
    """
    features = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    # Writing to a map of a full disk kills the process; reserving its bytes raises an OSError.
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return features


def features_path(
    backbone: keras.Model, data: Path, split: str, image: ImageConfig, views: int
) -> Path:
    """Returns the file of the features of a split; see `cached_features`."""
    shards = [shard.sha256 for shard in Manifest.load(data).splits[split].shards]
    weights = [sha256(v.numpy().tobytes()).hexdigest() for v in backbone.weights]
    pixels = [image.backbone, image.input_size, image.resize, image.crop, image.flip, views]
    if is_augmented(image):
        # Only then, so that features from before there was such augmentation are found.
        pixels += [image.rotation, image.colour, image.cutout]
    computed = json.dumps([*pixels, backbone.output.dtype])
    digest = sha256_lines([*shards, *weights, computed])[:16]
    return data / "features" / f"{split}-{digest}.npy"
