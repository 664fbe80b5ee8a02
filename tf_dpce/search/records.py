"""Images and captions as `prepare` left them in TFRecord shards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tf_dpce.errors import UserError

_FEATURES = ("image", "image_id", "path", "captions")


@dataclass(frozen=True)
class Record:
    """One image of a shard.

    Args:
        image_id: names the image.
        path: the file that it came from, made absolute.
        image: that file's bytes.
        captions: one or more.
    """

    image_id: str
    path: str
    image: bytes
    captions: tuple[str, ...]


def read_records(shard: str) -> Iterator[Record]:
    """Yields the images of one shard, one of them in memory at a time.

    Raises:
        UserError: the shard is damaged, or `prepare` did not write it.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        for record in tf.data.TFRecordDataset(shard).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            values = {name: features[name].bytes_list.value for name in _FEATURES}
            if not all(values.values()):
                raise UserError(f"{shard} has a record without {', '.join(_FEATURES)}")
            yield _record(values)
    except (tf.errors.DataLossError, DecodeError):
        raise UserError(f"{shard} is damaged: run prepare again") from None


def _record(values: dict[str, Any]) -> Record:
    captions = (caption.decode("utf-8", "replace") for caption in values["captions"])
    return Record(
        image_id=values["image_id"][0].decode("utf-8", "replace"),
        path=os.path.abspath(os.fsdecode(values["path"][0])),
        image=values["image"][0],
        captions=tuple(captions),
    )
