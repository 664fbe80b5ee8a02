"""What is to be embedded: images by glob, texts from a file, or either from prepared shards."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from tf_dpce.data.manifest import MANIFEST_FILE, Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import sha256_lines
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.status import MAX_BYTES, OK, REASONS, TOO_MANY_BYTES
from tf_dpce.search.embedding_store import IMAGES, TEXTS

_RECORDS = ".tfrecord"
_JSON_LINES = (".jsonl", ".ndjson")
_FEATURES = ("image", "image_id", "path", "captions")


@dataclass(frozen=True, slots=True)
class Item:
    """An image or a text.

    Attributes:
        id: name of the item in results.
        path: file of the image.
        text: the text.
        contents: bytes of the image if a shard holds them; else they are in the file.
    """

    id: str
    path: str | None = None
    text: str | None = None
    contents: bytes | None = None


@dataclass(frozen=True)
class Refusal:
    """Why an item has no embedding; `status` is None if its file could not be read."""

    status: int | None
    reason: str


@dataclass(frozen=True)
class Inputs:
    """A list of items that can be walked again from its start and is never in memory as a whole.

    Attributes:
        kind: "images" or "texts".
        digest: SHA-256 of the list.
        total: number of items.
        items: function that starts a walk.
    """

    kind: str
    digest: str
    total: int
    items: Callable[[], Iterator[Item]]

    def part(self, number: int, count: int) -> Inputs:
        """Returns the `number`-th, from 1, of `count` parts of nearly equal size, in order.

        Raises:
            UserError: there are fewer items than parts, or no part of this number.
        """
        if not number <= count <= self.total:
            message = f"{self.total} {self.kind} have no part {number} of {count}: take another"
            raise UserError("inputs.parts", message)
        start, stop = (self.total * place // count for place in (number - 1, number))
        digest = sha256_lines([self.digest, f"{number}/{count}"])
        return Inputs(self.kind, digest, stop - start, lambda: islice(self.items(), start, stop))


def find_images(patterns: Sequence[str]) -> Inputs:
    """Finds the images to embed.

    The id of a file is its path below the folder in which the wildcards of its pattern begin; the
    id of a record is its `image_id`. The digest covers path, size and time of change of files, and
    the content of records.

    Args:
        patterns: globs (`**` crosses folders), folders that `prepare` wrote, or `*.tfrecord`.

    Raises:
        UserError: a pattern matches nothing, or shards are mixed with images.

    Example:
        >>> find_images(["images/**/*.jpg"]).total
        50
    """
    found = _find(patterns)
    shards = [file for file, _ in found if file.endswith(_RECORDS)]
    if not shards:
        return _image_files(found)
    if len(shards) < len(found):
        message = f"--images names shards and images together ({shards[0]}): run embed twice"
        raise UserError("inputs.mixed", message, shards[0])
    return _survey(IMAGES, partial(_record_images, shards))


def find_texts(patterns: Sequence[str]) -> Inputs:
    """Finds the texts to embed: captions or queries.

    The id of a line is its number (from 1), after the name of its file if there are several files
    (`a.txt:1`), or the `id` that JSON Lines give it; the ids of a record's captions are
    `image_id#0`, `image_id#1` and so on.

    Args:
        patterns: text files (one text a line), `.jsonl` files (`text` and optionally `id`),
            folders that `prepare` wrote, or `*.tfrecord`.

    Raises:
        UserError: a pattern matches nothing, or a line of JSON has no text.
    """
    files = [file for file, _ in _find(patterns)]
    return _survey(TEXTS, partial(_texts, _prefixes(files)))


def read_image(path: str) -> bytes | Refusal:
    """Returns the bytes of an image file, or of the PNG that `to_png` makes of it.

    Of a file over the limit no more than that is read.
    """
    try:
        with open(path, "rb") as stream:
            contents = stream.read(MAX_BYTES + 1)
    except OSError as error:
        return Refusal(None, f"cannot be read: {error.strerror}")
    if len(contents) > MAX_BYTES:
        return Refusal(TOO_MANY_BYTES, REASONS[TOO_MANY_BYTES])
    contents, code = to_png(contents)
    return contents if code == OK else Refusal(code, REASONS[code])


def _find(patterns: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the files of all patterns, each once, with the folder that its id leaves out."""
    found: dict[str, tuple[str, str]] = {}
    for pattern in patterns:
        files, root = _matches(pattern)
        for file in files:
            found.setdefault(os.path.abspath(file), (file, root))
    return list(found.values())


def _matches(pattern: str) -> tuple[list[str], str]:
    """Returns the files of a pattern, and the folder in which its wildcards begin."""
    if os.path.isdir(pattern):
        return _shards(Path(pattern)), pattern
    if os.path.isfile(pattern):
        return [pattern], os.path.dirname(pattern)
    files = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not files:
        message = f"{pattern} matches no file: quote it, and cross folders with **"
        raise UserError("inputs.no_match", message, pattern)
    root = pattern
    while glob.has_magic(root):
        root = os.path.dirname(root)
    return files, root


def _shards(folder: Path) -> list[str]:
    if not (folder / MANIFEST_FILE).is_file():
        raise UserError(
            "inputs.not_prepared",
            f"{folder} is a folder without a {MANIFEST_FILE}: run prepare to its end, or name "
            f"files such as '{folder}/**/*.jpg'",
            folder,
        )
    splits = Manifest.load(folder).splits.values()
    return [str(folder / shard.file) for split in splits for shard in split.shards]


def _image_files(found: list[tuple[str, str]]) -> Inputs:
    states = ((os.path.abspath(file), os.stat(file)) for file, _ in found)
    lines = (f"{_clean(path)}\t{s.st_size}\t{s.st_mtime_ns}" for path, s in states)
    return Inputs(IMAGES, sha256_lines(lines), len(found), partial(_file_items, found))


def _file_items(found: list[tuple[str, str]]) -> Iterator[Item]:
    for file, root in found:
        name = Path(os.path.relpath(file, root or ".")).as_posix()
        yield Item(_clean(name), path=_clean(os.path.abspath(file)))


def _survey(kind: str, items: Callable[[], Iterator[Item]]) -> Inputs:
    """Walks all items once, so that a damaged line or shard is found before anything is written."""
    digest, total = hashlib.sha256(), 0
    for item in items():
        total += 1
        contents = hashlib.sha256(item.contents or b"").hexdigest()
        line = json.dumps([item.id, item.path, item.text, contents])
        digest.update(line.encode() + b"\n")
    if not total:
        raise UserError("inputs.empty", f"there are no {kind} to embed: the files are empty")
    return Inputs(kind, digest.hexdigest(), total, items)


def _prefixes(files: Sequence[str]) -> dict[str, str]:
    """Returns the beginning of the ids of each file's lines; empty if there is only one file."""
    if len(files) == 1:
        return {files[0]: ""}
    common = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    names = {file: Path(os.path.relpath(file, common)).as_posix() for file in files}
    return {file: f"{_clean(name)}:" for file, name in names.items()}


def _texts(prefixes: Mapping[str, str]) -> Iterator[Item]:
    for file, prefix in prefixes.items():
        if file.endswith(_RECORDS):
            yield from _record_captions(file)
            continue
        with open(file, encoding="utf-8-sig", errors="replace") as stream:
            for number, line in enumerate(stream, 1):
                name, text = f"{prefix}{number}", line.rstrip("\n")
                if file.endswith(_JSON_LINES):
                    yield _json_item(file, number, name, text)
                else:
                    yield Item(name, text=text)


def _json_item(file: str, number: int, name: str, line: str) -> Item:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        message = f'{file} line {number} is not an object with a "text": mend the line'
        raise UserError("inputs.line", message, file, number)
    return Item(_clean(str(record.get("id", name))), text=_clean(record["text"]))


def _record_images(shards: Sequence[str]) -> Iterator[Item]:
    for shard in shards:
        for record in _records(shard):
            path = os.path.abspath(os.fsdecode(record["path"][0]))
            yield Item(_decoded(record["image_id"][0]), _clean(path), contents=record["image"][0])


def _record_captions(shard: str) -> Iterator[Item]:
    for record in _records(shard):
        for number, caption in enumerate(record["captions"]):
            yield Item(f"{_decoded(record['image_id'][0])}#{number}", text=_decoded(caption))


def _records(shard: str) -> Iterator[dict[str, Sequence[bytes]]]:
    """Yields the features of the images of a prepared shard; one of them is in memory at a time."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        for record in tf.data.TFRecordDataset(shard).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            values = {name: features[name].bytes_list.value for name in _FEATURES}
            if not all(values.values()):
                message = f"{shard} has a record without {', '.join(_FEATURES)}: run prepare again"
                raise UserError("inputs.shard", message, shard)
            yield values
    except (tf.errors.DataLossError, DecodeError):
        raise UserError("inputs.shard", f"{shard} is damaged: run prepare again", shard) from None


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _clean(text: str) -> str:
    """Escapes what UTF-8 cannot hold; a file of such a name is then reported, not opened."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
