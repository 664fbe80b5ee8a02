"""Loads a table of images and captions for `keras fit`, without prepared shards."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from tf_dpce.data.prepare import read_images
from tf_dpce.data.validate_images import decodable, validate_images
from tf_dpce.datasets.listing import Image, Rejected
from tf_dpce.datasets.table import read_table
from tf_dpce.errors import UserError
from tf_dpce.logging import logger
from tf_dpce.preprocessing.image import evaluation_pixels
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


@dataclass(frozen=True)
class PairSplit:
    """The images of a split and their captions.

    Only paths and captions are in memory; the image files are read batch by batch.

    Attributes:
        images: N images with their captions.
        instances: N instance ids, from 0 to `num_instances - 1`. Images of the same
            person share an id.
    """

    images: tuple[Image, ...]
    instances: tuple[int, ...]

    @property
    def num_instances(self) -> int:
        """C, the number of instances."""
        return len(set(self.instances))

    @property
    def captions(self) -> tuple[str, ...]:
        """M captions, image by image."""
        return tuple(caption for image in self.images for caption in image.captions)

    def batch(
        self, batch_size: int, tokenizer: CaptionTokenizer, image_size: int, seed: int = 0
    ) -> tf.data.Dataset:
        """Returns batches for `fit`, in a new random order in every epoch.

        Each is a pair of dicts: the inputs `image`, float32 `[B, S, S, 3]` in 0..255, and `text`,
        int32 `[B, T]`; and the targets `image_logits`, `text_logits` and `pair`, which are all the
        instance ids, int64 `[B]`. The last captions of an epoch are dropped if they do not fill a
        batch.

        Args:
            batch_size: B, the number of captions in a batch.
            tokenizer: the tokenizer of captions.
            image_size: S, the width and height of an image in pixels.
            seed: the seed of the order.

        Raises:
            UserError: there are fewer captions than `batch_size`.
        """
        count = len(self.captions)
        if count < batch_size:
            raise UserError(
                "pairs.batch_size",
                f"the split has {count} captions, fewer than batch_size {batch_size}: "
                "choose a smaller batch_size or add captions",
            )

        def load(path: tf.Tensor, caption: tf.Tensor, instance: tf.Tensor) -> tuple:
            return _pixels(path, image_size), caption, instance

        def inputs_and_targets(image: tf.Tensor, captions: tf.Tensor, instance: tf.Tensor) -> tuple:
            targets = dict.fromkeys(("image_logits", "text_logits", "pair"), instance)
            return {"image": image, "text": tokenizer(captions)}, targets

        pairs = self._pairs().shuffle(count, seed=seed)
        pairs = pairs.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        return pairs.batch(batch_size, drop_remainder=True).map(inputs_and_targets).prefetch(2)

    def image_batches(self, image_size: int, batch_size: int = 32) -> tf.data.Dataset:
        """Returns every image once, in order, for evaluation.

        Each batch is a dict: `image`, float32 RGB `[B, S, S, 3]` in 0..255, and `instance`, int64
        `[B]`. The last batch may be smaller.

        Args:
            image_size: S, the width and height of an image in pixels.
            batch_size: B, the number of images in a batch.
        """
        paths = [os.fsencode(image.path) for image in self.images]
        rows = (paths, tf.constant(self.instances, tf.int64))
        images = tf.data.Dataset.from_tensor_slices(rows).map(
            lambda path, instance: {"image": _pixels(path, image_size), "instance": instance},
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return images.batch(batch_size).prefetch(2)

    def caption_batches(
        self, tokenizer: CaptionTokenizer, batch_size: int = 256
    ) -> tf.data.Dataset:
        """Returns every caption once, in order, for evaluation.

        Each batch is a dict: `text`, int32 `[B, T]`, and `instance`, int64 `[B]`. The last batch
        may be smaller.

        Args:
            tokenizer: the tokenizer of captions, with T token positions.
            batch_size: B, the number of captions in a batch.
        """
        return (
            self._pairs()
            .batch(batch_size)
            .map(lambda _, text, instance: {"text": tokenizer(text), "instance": instance})
        )

    def _pairs(self) -> tf.data.Dataset:
        """Returns path, caption and instance of every caption."""
        paths, instances = [], []
        for image, instance in zip(self.images, self.instances, strict=True):
            paths += [os.fsencode(image.path)] * len(image.captions)
            instances += [instance] * len(image.captions)
        rows = (paths, list(self.captions), tf.constant(instances, tf.int64))
        return tf.data.Dataset.from_tensor_slices(rows)


@dataclass(frozen=True)
class Pairs:
    """The pairs of a table, as `load_pairs` returns them.

    Attributes:
        train: the training split.
        val: the validation split.
        rejected: the rows and images that cannot be used, each with the reason.
    """

    train: PairSplit
    val: PairSplit
    rejected: tuple[Rejected, ...]

    @property
    def captions(self) -> tuple[str, ...]:
        """The training captions, from which `CaptionTokenizer.adapt` takes its vocabulary."""
        return self.train.captions

    @property
    def num_instances(self) -> int:
        """C, the number of training instances: the classes of the instance loss."""
        return self.train.num_instances


def load_pairs(
    table: Path | str,
    images: Path | str | None = None,
    seed: int = 0,
    image_column: str | None = None,
    caption_column: Sequence[str] | None = None,
) -> Pairs:
    """Loads a table of images and captions for training with `keras fit`.

    The table has a column such as `image`, one or more such as `caption`, and may have `split` and
    `instance`, as for `prepare --source table`. Without a column `split`, the split is drawn: 80 %
    of the images are for training, 10 % for validation, and the rest is a test split that this
    function ignores.

    Every image is decoded once, so that none fails during training. Images that cannot be decoded
    are left out, and a warning counts them. For many thousands of images use `prepare` instead:
    its shards are read faster, and it checks the images only once.

    Args:
        table: a CSV, TSV, JSON or Parquet file, a folder of Parquet files, or a pattern.
        images: the folder to which the paths in the table are relative; None takes the folder of
            the table.
        seed: the seed of the drawn split.
        image_column: the column of images; None finds it by its name.
        caption_column: the columns of captions; None finds them by their names.

    Returns:
        The splits `train` and `val`, and what was rejected.

    Raises:
        UserError: the table is malformed or holds the images themselves, or no image of a split
            can be used.

    Example:
        >>> pairs = load_pairs("pairs.csv", images="images")
        >>> tokenizer = CaptionTokenizer.adapt(pairs.captions)
        >>> batches = pairs.train.batch(32, tokenizer, image_size=64)
    """
    table = Path(table)
    folder = None if images is None else Path(images)
    columns = {"image_column": image_column, "caption_column": caption_column}
    items = read_table(table, folder, seed=seed, **columns)
    found, rejected = read_images(items)
    seen = [image for image in found if image.split != "test"]
    workers = len(os.sched_getaffinity(0))
    checked = validate_images(seen, decodable, rejected, workers)
    usable = [item.image for item in checked]
    if rejected:
        reasons = Counter(item.reason for item in rejected).most_common()
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        logger.warning(f"{table}: left out {len(rejected):,} rows or images: {counts}")
    splits = []
    for name in ("train", "val"):
        own = [image for image in usable if image.split == name]
        if not own:
            last = f": {rejected[-1].path}: {rejected[-1].reason}" if rejected else ""
            raise UserError(
                "prepare.empty_split",
                f"{table} has no usable image in the split {name!r}{last}",
                table,
            )
        numbers: dict[str, int] = {}
        instances = tuple(numbers.setdefault(image.instance, len(numbers)) for image in own)
        splits.append(PairSplit(tuple(own), instances))
    return Pairs(*splits, tuple(rejected))


def _pixels(path: tf.Tensor, image_size: int) -> tf.Tensor:
    return evaluation_pixels(tf.io.read_file(path), image_size)
