"""Turns prepared shards into batches by tf.data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_dpce.config import ImageConfig, Resize, TextConfig
from tf_dpce.data.index_shuffle import AUGMENT, CAPTION, IMAGE, SHIFT, IndexShuffle, pick
from tf_dpce.data.manifest import Manifest
from tf_dpce.preprocessing.augment import DRAWS, augmented
from tf_dpce.preprocessing.image import evaluation_pixels, training_pixels
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer, position_shift

_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "image_id": tf.io.FixedLenFeature([], tf.string),
    "path": tf.io.FixedLenFeature([], tf.string),
    "captions": tf.io.RaggedFeature(tf.string),
    "instance": tf.io.FixedLenFeature([], tf.int64),
}
_READ_BYTES = 64 * 1024
# Stands for all images of a split, in place of the number of its first ones.
ALL = -1

Batches = tf.data.Dataset
# Draws a caption for each row: (instances int64 `[R]`, draws in 0..1 `[R]`) -> int32 ids `[R, T]`.
Captions = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class RecordReader:
    """Reads any record of a split by its position, from the offsets in the manifest.

    Args:
        folder: the folder of prepared data.
        split: name of the split.
    """

    def __init__(self, folder: Path, split: str) -> None:
        shards = Manifest.load(folder).splits[split].shards
        self._files = tf.constant([str(folder / shard.file) for shard in shards])
        counts = [shard.records for shard in shards]
        self._file_of = tf.repeat(tf.range(len(shards)), counts)
        self._offset_of = tf.constant([o for shard in shards for o in shard.offsets], tf.int64)

    def __call__(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the record at an int64 scalar position, parsed."""
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=[self._files[self._file_of[index]]],
            compression_type="",
            buffer_size=_READ_BYTES,
            byte_offsets=[self._offset_of[index]],
        )
        spec = tf.TensorSpec([], tf.string)
        records = tf.data.experimental.from_variant(variant, spec).take(1)
        return parse_record(records.get_single_element())


def parse_record(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one record (scalar string) of a shard."""
    return tf.io.parse_single_example(serialized, _FEATURES)


def training_batches(
    folder: Path,
    tokenizer: CaptionTokenizer,
    image: ImageConfig,
    text: TextConfig,
    order: IndexShuffle,
    start: int,
    stop: int,
    captions: Captions | None = None,
) -> Batches:
    """Returns the batches of training steps `start` to `stop` - 1.

    Each is a dict: `image` float32 `[R, S, S, 3]`, `text` int32 `[R, T]` of one caption,
    `instance` int64 `[R]`: the rows of the batch that `order` takes. The caption is one of the
    image's own, or what `captions` draws.
    """
    reader = RecordReader(folder, "train")

    def example(index: tf.Tensor, draws: tf.Tensor) -> dict[str, tf.Tensor]:
        record = reader(index)
        pixels = _augmented(record["image"], image, draws[IMAGE:])
        own = record["captions"]
        caption = own[pick(draws[CAPTION], tf.size(own))]
        instance = record["instance"]
        return {"image": pixels, "caption": caption, "instance": instance, "draws": draws}

    def encode(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        own, draws = batch.pop("caption"), batch.pop("draws")
        ids = captions(batch["instance"], draws[:, CAPTION]) if captions else tokenizer(own)
        return {**batch, "text": position_shift(ids, draws[:, SHIFT]) if text.shift else ids}

    rows = order.steps(start, stop).unbatch().map(example, num_parallel_calls=tf.data.AUTOTUNE)
    batches = rows.batch(order.rows, drop_remainder=True)
    return batches.map(encode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def evaluation_images(
    folder: Path,
    split: str,
    image_size: int,
    batch_size: int,
    resize: Resize = "center_crop",
    first: int = ALL,
) -> Batches:
    """Returns every image of a split, or the `first` ones, once, in the order of the shards.

    Each batch is a dict: `image` float32 `[B, S, S, 3]`, stretched or cut to squares, `instance`
    int64 `[B]`, `image_id` and `path` strings `[B]`. The last batch may be smaller.
    """

    def example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        record = parse_record(serialized)
        rest = {key: record[key] for key in ("instance", "image_id", "path")}
        return {"image": evaluation_pixels(record["image"], image_size, resize), **rest}

    rows = records(folder, split, first).map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return rows.batch(batch_size).prefetch(2)


def evaluation_captions(
    folder: Path, split: str, tokenizer: CaptionTokenizer, batch_size: int, first: int = ALL
) -> Batches:
    """Returns every caption of a split, or of its `first` images, once, left-aligned.

    They come image by image. Each batch is a dict: `text` int32 `[B, T]`, `instance` int64
    `[B]`. The last batch may be smaller.
    """

    def captions(serialized: tf.Tensor) -> tf.data.Dataset:
        record = parse_record(serialized)
        instances = tf.repeat(record["instance"], tf.size(record["captions"]))
        return tf.data.Dataset.from_tensor_slices((record["captions"], instances))

    def encode(captions: tf.Tensor, instances: tf.Tensor) -> dict[str, Any]:
        return {"text": tokenizer(captions), "instance": instances}

    rows = records(folder, split, first).flat_map(captions)
    return rows.batch(batch_size).map(encode).prefetch(2)


def caption_groups(folder: Path, split: str, batch_size: int) -> Batches:
    """Returns the captions of every image, in the order of the shards.

    Each batch is a dict: `captions` ragged strings `[B, None]`, `instance` int64 `[B]`, and
    `image_id` strings `[B]`.
    """

    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {key: _FEATURES[key] for key in ("captions", "instance", "image_id")}
        return tf.io.parse_example(serialized, features)

    return records(folder, split).batch(batch_size).map(parse)


def view_batches(
    folder: Path, split: str, image: ImageConfig, view: int, batch_size: int
) -> Batches:
    """Returns one view of every image once, in the order of the shards.

    Each batch is float32 `[B, S, S, 3]`. View 0 is the plain image; the others are augmented
    with draws that are a function of view and image.
    """

    def example(index: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
        contents = parse_record(serialized)["image"]
        if view == 0:
            return evaluation_pixels(contents, image.input_size, image.resize)
        seed = tf.stack([tf.constant(view, tf.int64), index])
        more = tf.random.experimental.stateless_fold_in(seed, 1)
        draws = [
            tf.random.stateless_uniform([AUGMENT - IMAGE], seed),
            tf.random.stateless_uniform([DRAWS], more),
        ]
        return _augmented(contents, image, tf.concat(draws, axis=0))

    rows = records(folder, split).enumerate().map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return rows.batch(batch_size).prefetch(2)


def _augmented(contents: tf.Tensor, image: ImageConfig, draws: tf.Tensor) -> tf.Tensor:
    """Returns the pixels of a training image; draws, float32 `[11]`, are those from `IMAGE` on."""
    size, more = image.input_size, draws[AUGMENT - IMAGE :]
    pixels = training_pixels(contents, size, draws, image.crop, image.flip, image.resize)
    return augmented(pixels, image, more)


def records(folder: Path, split: str, first: int = ALL) -> tf.data.Dataset:
    """Returns every record of a split, or the `first`, as stored, in the order of the shards."""
    shards = Manifest.load(folder).splits[split].shards
    return tf.data.TFRecordDataset([str(folder / shard.file) for shard in shards]).take(first)
