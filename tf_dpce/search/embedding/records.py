"""Reads the images and captions of prepared shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tf_dpce.data.manifest import MANIFEST_FILE, Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import sha256_file
from tf_dpce.runtimes.engines import check_tensorflow
from tf_dpce.storage import is_remote, local_file, open_folder, rooted

SHARD_ENDING = ".tfrecord"

# TFRecord frames a record by its length (8 bytes), that length's checksum (4) and its own (4).
_HEAD, _TAIL = 12, 4

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
    folders = {shard: os.path.dirname(rooted(shard)) for shard in shards}
    common = os.path.commonpath(folders.values()) if folders else ""
    names = {shard: os.path.relpath(folder, common) for shard, folder in folders.items()}
    return {shard: "" if name == "." else f"{name}/" for shard, name in names.items()}


def shard_facts(shards: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yields the SHA-256 of each shard and its number of records.

    Both are read from the manifest of its folder; the file itself is read if it is in none.

    Raises:
        UserError: a shard is cut short, or a remote one is in no manifest.
    """
    listed: dict[str, dict[str, tuple[str, int]]] = {}
    for shard in shards:
        folder, name = os.path.split(shard)
        if folder not in listed:
            listed[folder] = manifest_facts(folder)
        if name in listed[folder]:
            yield listed[folder][name]
        elif is_remote(shard):
            message = (
                f"{shard} is in no {MANIFEST_FILE} beside it: name a folder that prepare wrote"
            )
            raise UserError("inputs.not_prepared", message, shard)
        else:
            yield sha256_file(Path(shard)), _count(shard)


def manifest_facts(folder: str) -> dict[str, tuple[str, int]]:
    """Returns digest and number of records of each shard of a prepared folder, or its address."""
    files = open_folder(folder or ".")
    if MANIFEST_FILE not in files.names():
        return {}
    manifest = Manifest.parse(files.path(MANIFEST_FILE), files.read([MANIFEST_FILE])[0])
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    return {shard.file: (shard.sha256, shard.records) for shard in shards}


def _count(shard: str) -> int:
    """Counts the records by their frames alone."""
    count = 0
    with open(shard, "rb") as stream:
        while head := stream.read(_HEAD):
            stream.seek(int.from_bytes(head[:8], "little") + _TAIL, os.SEEK_CUR)
            count += 1
        if stream.tell() != os.path.getsize(shard):
            raise UserError("inputs.shard", f"{shard} is cut short: run prepare again", shard)
    return count


def clean(text: str) -> str:
    """Escapes what UTF-8 cannot hold; a file of such a name is then reported, not opened."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def records(shard: str, first: int = 0) -> Iterator[Record]:
    """Yields the images of a prepared shard; one of them is in memory at a time.

    Args:
        shard: a file, or its address.
        first: number of records to leave out.

    Raises:
        UserError: the shard is damaged, or `prepare` did not write it.
    """
    check_tensorflow(f"the prepared shard {shard}")
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        with local_file(shard) as path:
            for record in tf.data.TFRecordDataset(path).skip(first).as_numpy_iterator():
                features = tf.train.Example.FromString(record).features.feature
                values = {name: features[name].bytes_list.value for name in _FEATURES}
                if not all(values.values()):
                    lacks = f"has a record without {', '.join(_FEATURES)}"
                    raise UserError("inputs.shard", f"{shard} {lacks}: run prepare again", shard)
                captions = [caption.decode("utf-8", "replace") for caption in values["captions"]]
                image_id = values["image_id"][0].decode("utf-8", "replace")
                yield Record(image_id, values["path"][0], values["image"][0], captions)
    except (tf.errors.DataLossError, tf.errors.NotFoundError, DecodeError):
        message = f"{shard} is damaged or missing: run prepare again"
        raise UserError("inputs.shard", message, shard) from None
