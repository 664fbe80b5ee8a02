"""Reads the images and captions of prepared shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tf_dpce.data.manifest import MANIFEST_FILE, Manifest
from tf_dpce.errors import UserError

SHARD_ENDING = ".tfrecord"

_FEATURES = ("image", "image_id", "path", "captions")


class Record(NamedTuple):
    """An image of a shard, the bytes of its file, with its captions."""

    image_id: str
    path: bytes
    image: bytes
    captions: list[str]


def prepared_shards(folder: Path) -> list[str]:
    """Returns the shards of a folder that `prepare` wrote; none of another folder.

    Raises:
        UserError: the folder has shards, but no manifest, or its manifest is damaged.
    """
    if (folder / MANIFEST_FILE).is_file():
        splits = Manifest.load(folder).splits.values()
        return [str(folder / shard.file) for split in splits for shard in split.shards]
    if any(folder.glob(f"*{SHARD_ENDING}")):
        raise UserError(
            "inputs.not_prepared",
            f"{folder} holds shards, but no {MANIFEST_FILE}: run prepare to its end, or name "
            "the shards",
            folder,
        )
    return []


def folder_prefixes(shards: Sequence[str]) -> dict[str, str]:
    """Returns what the ids of each shard's images begin with, so that those of all are unique.

    It is empty if all shards lie in one folder, else the shard's folder below the common one.
    """
    folders = {shard: os.path.abspath(os.path.dirname(shard)) for shard in shards}
    common = os.path.commonpath(folders.values()) if folders else ""
    names = {shard: os.path.relpath(folder, common) for shard, folder in folders.items()}
    return {shard: "" if name == "." else f"{name}/" for shard, name in names.items()}


def records(shard: str) -> Iterator[Record]:
    """Yields the images of a prepared shard; one of them is in memory at a time.

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
                message = f"{shard} has a record without {', '.join(_FEATURES)}: run prepare again"
                raise UserError("inputs.shard", message, shard)
            captions = [caption.decode("utf-8", "replace") for caption in values["captions"]]
            image_id = values["image_id"][0].decode("utf-8", "replace")
            yield Record(image_id, values["path"][0], values["image"][0], captions)
    except (tf.errors.DataLossError, DecodeError):
        raise UserError("inputs.shard", f"{shard} is damaged: run prepare again", shard) from None
