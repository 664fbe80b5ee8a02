"""TFRecord shards: one record an image, with all its captions, if training could decode it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf

from tf_dpce.data.manifest import MAX_INSTANCES, SHARD_BYTES, ShardInfo, SplitInfo
from tf_dpce.data.validate_images import Engine, storable, validate_images
from tf_dpce.datasets.listing import NO_FILE, Image, Rejected
from tf_dpce.datasets.names import nearest_name
from tf_dpce.errors import UserError, shorten
from tf_dpce.files import sha256_file
from tf_dpce.remote_path import any_path

# TFRecord frames a record by its length (8 bytes), that length's checksum (4) and its own (4).
_FRAME_BYTES = 16


def encode_record(image: Image, contents: bytes, instance: int) -> bytes:
    """Returns an image as a serialised `tf.train.Example`, the same bytes every time.

    Features: `image` (the file's bytes), `image_id`, `path` (bytes), `captions` (bytes, one or
    more), `instance` (int64).
    """
    values = {
        "image": [contents],
        "image_id": [image.image_id.encode()],
        "path": [os.fsencode(image.path)],
        "captions": [caption.encode() for caption in image.captions],
    }
    example = tf.train.Example()
    feature = example.features.feature
    for name, own in values.items():
        feature[name].bytes_list.value.extend(own)
    feature["instance"].int64_list.value.append(instance)
    return example.SerializeToString(deterministic=True)


def write_shards(
    folder: Path, split: str, records: Iterable[bytes], shard_bytes: int = SHARD_BYTES
) -> list[ShardInfo]:
    """Writes records into `SPLIT-00000-of-00002.tfrecord` and so on.

    Args:
        folder: an existing folder that no reader looks into yet.
        split: first part of the names.
        records: serialised examples, written in their order; only one at a time is held.
        shard_bytes: a new file is begun once a file has this many bytes.

    Returns:
        What was written, file by file.
    """
    sizes: list[int] = []
    offsets: list[list[int]] = []
    with ExitStack() as stack:
        for record in records:
            if not sizes or sizes[-1] >= shard_bytes:
                stack.close()
                path = folder / f"{split}-{len(sizes):05d}"
                writer = stack.enter_context(tf.io.TFRecordWriter(str(path)))
                sizes.append(0)
                offsets.append([])
            writer.write(record)
            offsets[-1].append(sizes[-1])
            sizes[-1] += _FRAME_BYTES + len(record)
    shards = []
    for number, (size, starts) in enumerate(zip(sizes, offsets, strict=True)):
        # Its final name was unknown until all were written.
        path = folder / f"{split}-{number:05d}"
        path = path.rename(f"{path}-of-{len(sizes):05d}.tfrecord")
        shards.append(ShardInfo(path.name, size, sha256_file(path), len(starts), tuple(starts)))
    return shards


@dataclass
class SplitWriter:
    """Validates and writes splits, and gathers what concerns all of them.

    Attributes:
        folder: where the shards go; no reader looks into it yet.
        rejected: what was rejected so far; unusable images are added.
        workers: number of threads that decode.
        shard_bytes: a new shard is begun once one has this many bytes.
        engine: where images are decoded, see `validate_images`.
        converted: number of images stored as PNG so far that are of another format.
        stored: the images that are stored so far.
        split_lines: a line of split and image for each stored image.
        training_captions: captions of the stored training images.
    """

    folder: Path
    rejected: list[Rejected]
    workers: int
    shard_bytes: int
    engine: Engine = "local"
    converted: int = 0
    stored: list[Image] = field(default_factory=list)
    split_lines: list[str] = field(default_factory=list)
    training_captions: list[str] = field(default_factory=list)

    def write(self, split: str, images: Sequence[Image]) -> SplitInfo:
        """Writes the shards of a split, in the order of `images`.

        Raises:
            UserError: none of them can be used, or they are of too many instances.
        """
        stored: list[Image] = []
        instances: dict[str, int] = {}

        def records() -> Iterator[bytes]:
            name = f"{split} images"
            options = {"name": name, "engine": self.engine}
            checked = validate_images(images, storable, self.rejected, self.workers, **options)
            for item in checked:
                stored.append(item.image)
                self.converted += item.rewritten
                instance = instances.setdefault(item.image.instance, len(instances))
                if instance >= MAX_INSTANCES:
                    message = f"there are more than {MAX_INSTANCES} instances: use fewer"
                    raise UserError("prepare.instances", message)
                yield encode_record(item.image, item.contents, instance)

        shards = write_shards(self.folder, split, records(), self.shard_bytes)
        if not stored:
            raise UserError("prepare.empty_split", self._why_empty(split, len(images)))
        captions = [caption for image in stored for caption in image.captions]
        if split == "train":
            self.training_captions = captions
        self.stored += stored
        self.split_lines += [f"{split}\t{image.image_id}" for image in stored]
        # An image that is an instance of its own is no lone one.
        shown = Counter(image.instance for image in stored)
        named = {image.instance for image in stored if image.instance != image.image_id}
        lone = sum(shown[instance] == 1 for instance in named)
        return SplitInfo(len(stored), len(captions), len(instances), tuple(shards), lone)

    def _why_empty(self, split: str, images: int) -> str:
        if not images:
            return (
                f"no image is in the split {split!r}: train, val and test each need one; look at "
                "the data set's splits, or give others as --split-file"
            )
        last = self.rejected[-1]
        reasons = {item.reason for item in self.rejected[-images:]}
        wrong = ""
        if reasons == {NO_FILE}:
            nearest = nearest_name(any_path(last.path))
            wrong = f"; the nearest name there is {nearest}" if nearest else ""
            wrong += "; --root or --images is probably wrong"
        # The name is a table's, and may be anything.
        last_path = any_path(last.path)
        last_path = last_path.parent / shorten(last_path.name)
        return (
            f"none of the {images} images of the split {split!r} can be used, "
            f"the last of them {last_path}: {last.reason}{wrong}"
        )
