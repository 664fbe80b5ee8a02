"""Writes the images of a split into shards, without those that training could not decode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf

from tf_dpce.data.bitmap import is_bitmap, png_of_bitmap
from tf_dpce.data.manifest import MAX_INSTANCES, SplitInfo
from tf_dpce.data.shards import encode_record, write_shards
from tf_dpce.datasets.pair import NO_FILE, Image, Rejected
from tf_dpce.datasets.validate_images import validate_images
from tf_dpce.errors import UserError
from tf_dpce.logging import Progress
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import decode
from tf_dpce.preprocessing.image_header import check


@dataclass
class SplitWriter:
    """Validates and writes splits, and gathers what concerns all of them.

    Attributes:
        folder: where the shards go; no reader looks into it yet.
        rejected: what was rejected so far; unusable images are added.
        workers: number of threads that decode.
        shard_bytes: a new shard is begun once one has this many bytes.
        total: number of images of all splits.
        display: shows how many of them are done.
        done: number of images read so far.
        bitmaps: number of BMP images stored so far, as PNG.
        split_lines: a line of split and image for each stored image.
        training_captions: captions of the stored training images.
    """

    folder: Path
    rejected: list[Rejected]
    workers: int
    shard_bytes: int
    total: int
    display: Progress
    done: int = 0
    bitmaps: int = 0
    split_lines: list[str] = field(default_factory=list)
    training_captions: list[str] = field(default_factory=list)

    def write(self, split: str, images: Sequence[Image]) -> SplitInfo:
        """Writes the shards of a split, in the order of `images`.

        Raises:
            UserError: none of them can be used, or they are of too many instances.
        """
        stored: list[Image] = []
        instances: dict[str, int] = {}
        records = self._records(images, stored, instances)
        shards = write_shards(self.folder, split, records, self.shard_bytes)
        if not stored:
            raise UserError("prepare.empty_split", self._why_empty(split, len(images)))
        captions = [caption for image in stored for caption in image.captions]
        if split == "train":
            self.training_captions = captions
        self.split_lines += [f"{split}\t{image.image_id}" for image in stored]
        lone = _lone_instances(stored)
        return SplitInfo(len(stored), len(captions), len(instances), tuple(shards), lone)

    def _records(
        self, images: Sequence[Image], stored: list[Image], instances: dict[str, int]
    ) -> Iterator[bytes]:
        for item in validate_images(images, storable, status.MAX_BYTES, self.workers):
            self.done += 1
            self.display.update(self.done, total=self.total)
            if item.reason:
                self.rejected.append(Rejected(str(item.image.path), item.reason))
                continue
            stored.append(item.image)
            self.bitmaps += item.rewritten
            instance = instances.setdefault(item.image.instance, len(instances))
            if instance >= MAX_INSTANCES:
                message = f"there are more than {MAX_INSTANCES} instances: use fewer"
                raise UserError("prepare.instances", message)
            yield encode_record(item.image, item.contents, instance)

    def _why_empty(self, split: str, images: int) -> str:
        if not images:
            return (
                f"no image is in the split {split!r}: train, val and test each need one; look at "
                "the data set's splits, or give others as --split-file"
            )
        last = self.rejected[-1]
        reasons = {item.reason for item in self.rejected[-images:]}
        wrong = "; --root or --images is probably wrong" if reasons == {NO_FILE} else ""
        return (
            f"none of the {images} images of the split {split!r} can be used, "
            f"the last of them {last.path}: {last.reason}{wrong}"
        )


def _lone_instances(images: Sequence[Image]) -> int:
    """Counts instances with one image, but for images that are instances of their own."""
    shown = Counter(item.instance for item in images if item.instance != item.image_id)
    return sum(count == 1 for count in shown.values())


def storable(contents: bytes) -> tuple[bytes, str | None]:
    """Returns what to store of a file, and why training cannot decode it, None if it can.

    A BMP becomes a PNG, anything else stays as it is.
    """
    if is_bitmap(contents):
        contents, code = png_of_bitmap(contents)
        if code != status.OK:
            return b"", status.REASONS[code]
    return contents, decoding_fault(contents)


def decoding_fault(contents: bytes) -> str | None:
    """Returns the reason why training cannot decode the bytes of a file, None if it can."""
    try:
        code = int(_status(tf.constant(contents)))
    except tf.errors.InvalidArgumentError:
        code = status.UNDECODABLE
    return None if code == status.OK else status.REASONS[code]


# As one graph it holds Python's lock for a quarter of the time that single operations do.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _status(contents: tf.Tensor) -> tf.Tensor:
    def by_decoding() -> tf.Tensor:
        values = tf.size(decode(contents))
        return tf.where(values > 0, status.OK, status.UNDECODABLE)

    code = check(contents)
    return tf.cond(code == status.OK, by_decoding, lambda: code)
