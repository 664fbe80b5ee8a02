"""TFRecord shards: one record an image, with all its captions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf

from tf_dpce.data.manifest import ShardInfo
from tf_dpce.datasets.pair import Image
from tf_dpce.files import sha256_file

SHARD_BYTES = 100 * 2**20
# TFRecord frames a record by its length (8 bytes), that length's checksum (4) and its own (4).
_FRAME_BYTES = 16


def encode_record(image: Image, contents: bytes, instance: int) -> bytes:
    """Returns an image as a serialised `tf.train.Example`, the same bytes every time.

    Features: `image` (the file's bytes), `image_id`, `path` (bytes), `captions` (bytes, one or
    more), `instance` (int64).
    """
    features = {
        "image": _bytes_feature(contents),
        "image_id": _bytes_feature(image.image_id.encode()),
        "path": _bytes_feature(os.fsencode(image.path)),
        "captions": _bytes_feature(*(caption.encode() for caption in image.captions)),
        "instance": tf.train.Feature(int64_list=tf.train.Int64List(value=[instance])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
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
    drafts: list[_Draft] = []
    writer = None
    try:
        for record in records:
            if writer is None or drafts[-1].bytes >= shard_bytes:
                if writer is not None:
                    writer.close()
                drafts.append(_Draft(folder / f"{split}-{len(drafts):05d}"))
                writer = tf.io.TFRecordWriter(str(drafts[-1].path))
            writer.write(record)
            drafts[-1].add(record)
    finally:
        if writer is not None:
            writer.close()
    return [draft.finish(len(drafts)) for draft in drafts]


@dataclass
class _Draft:
    """A shard whose final name is unknown until all are written."""

    path: Path
    bytes: int = 0
    offsets: list[int] = field(default_factory=list)

    def add(self, record: bytes) -> None:
        self.offsets.append(self.bytes)
        self.bytes += _FRAME_BYTES + len(record)

    def finish(self, count: int) -> ShardInfo:
        path = self.path.rename(f"{self.path}-of-{count:05d}.tfrecord")
        digest = sha256_file(path)
        return ShardInfo(path.name, self.bytes, digest, len(self.offsets), tuple(self.offsets))


def _bytes_feature(*values: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
