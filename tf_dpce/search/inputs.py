"""What is to be embedded: images by glob, sentences from a file, or either from shards."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tf_dpce.data.manifest import MANIFEST_FILE, Manifest
from tf_dpce.errors import UserError
from tf_dpce.search.embedding_store import IMAGES, TEXTS
from tf_dpce.search.records import read_records

_RECORDS = ".tfrecord"
_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Item:
    """One image or sentence.

    Args:
        id: how results name it.
        path: the image's file.
        text: the sentence.
        contents: the image's bytes where a shard holds them; else they are in the file.
    """

    id: str
    path: str | None = None
    text: str | None = None
    contents: bytes | None = None


@dataclass(frozen=True)
class Inputs:
    """A list of items that can be walked again from its start, never held as a whole.

    Args:
        kind: "images" or "texts".
        digest: SHA-256 that tells one list from another.
        total: number of items.
        items: starts a walk.
    """

    kind: str
    digest: str
    total: int
    items: Callable[[], Iterator[Item]]


def find_images(patterns: Sequence[str]) -> Inputs:
    """Finds the images that are to be embedded.

    A file's id is its path below the folder where its pattern's wildcards begin; a record's
    is its `image_id`. Files are told apart by path, size and time of change, records by content.

    Args:
        patterns: globs (`**` crosses folders), folders that `prepare` wrote, or `*.tfrecord`.

    Raises:
        UserError: a pattern matches nothing, or shards are mixed with images.

    Example:
        >>> find_images(["photos/**/*.jpg"]).total
        8000
    """
    found = _found(patterns)
    shards = [file for file, _ in found if file.endswith(_RECORDS)]
    if not shards:
        return _image_files(found)
    if len(shards) < len(found):
        raise UserError(f"--images names shards and images together ({shards[0]}): run twice")
    return _survey(IMAGES, partial(_record_images, shards))


def find_texts(patterns: Sequence[str]) -> Inputs:
    """Finds the sentences that are to be embedded.

    A line's id is its number (from 1), after the name of its file where there are several
    (`a.txt:1`), or the `id` that JSON Lines give it; the ids of a record's captions are
    `image_id#0`, `image_id#1` and so on.

    Args:
        patterns: text files (one sentence a line), `.jsonl` files (`text` and, if wanted, `id`),
            folders that `prepare` wrote, or `*.tfrecord`.

    Raises:
        UserError: a pattern matches nothing, or a line is not what its file promises.
    """
    files = [file for file, _ in _found(patterns)]
    return _survey(TEXTS, partial(_sentences, _prefixes(files)))


def _found(patterns: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the files of all patterns as `_matches` does, each once though patterns overlap."""
    found: dict[str, tuple[str, str]] = {}
    for file, root in (pair for pattern in patterns for pair in _matches(pattern)):
        found.setdefault(os.path.abspath(file), (file, root))
    return list(found.values())


def _matches(pattern: str) -> list[tuple[str, str]]:
    """Returns files with the folder that their ids leave out, sorted."""
    if os.path.isdir(pattern):
        return [(shard, pattern) for shard in _shards(Path(pattern))]
    if os.path.isfile(pattern):
        return [(pattern, os.path.dirname(pattern))]
    files = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not files:
        raise UserError(f"{pattern} matches no file: quote it, and cross folders with **")
    return [(file, _fixed_part(pattern)) for file in files]


def _shards(folder: Path) -> list[str]:
    if not (folder / MANIFEST_FILE).is_file():
        remedy = f"run prepare to its end, or name files such as '{folder}/**/*.jpg'"
        raise UserError(f"{folder} is a folder without a {MANIFEST_FILE}: {remedy}")
    splits = Manifest.load(folder).splits.values()
    return [str(folder / shard.file) for split in splits for shard in split.shards]


def _fixed_part(pattern: str) -> str:
    """Returns the folders of a pattern that stand before its first wildcard."""
    while glob.has_magic(pattern):
        pattern = os.path.dirname(pattern)
    return pattern


def _image_files(found: list[tuple[str, str]]) -> Inputs:
    digest = hashlib.sha256()
    for file, _ in found:
        status = os.stat(file)
        line = f"{os.path.abspath(file)}\t{status.st_size}\t{status.st_mtime_ns}\n"
        digest.update(os.fsencode(line))
    return Inputs(IMAGES, digest.hexdigest(), len(found), partial(_file_items, found))


def _file_items(found: list[tuple[str, str]]) -> Iterator[Item]:
    for file, root in found:
        name = Path(os.path.relpath(file, root or ".")).as_posix()
        yield Item(_clean(name), path=_clean(os.path.abspath(file)))


def _survey(kind: str, items: Callable[[], Iterator[Item]]) -> Inputs:
    """Walks all items once: a broken line or shard shows before anything is written."""
    digest, total = hashlib.sha256(), 0
    for item in items():
        total += 1
        contents = hashlib.sha256(item.contents or b"").hexdigest()
        line = json.dumps([item.id, item.path, item.text, contents])
        digest.update(line.encode() + b"\n")
    if not total:
        raise UserError(f"there are no {kind} to embed: the files are empty")
    return Inputs(kind, digest.hexdigest(), total, items)


def _prefixes(files: Sequence[str]) -> dict[str, str]:
    """Returns by file what its lines' ids begin with: nothing where there is only one file."""
    if len(files) == 1:
        return {files[0]: ""}
    common = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    names = {file: Path(os.path.relpath(file, common)).as_posix() for file in files}
    return {file: f"{_clean(name)}:" for file, name in names.items()}


def _sentences(prefixes: Mapping[str, str]) -> Iterator[Item]:
    for file, prefix in prefixes.items():
        if file.endswith(_RECORDS):
            yield from _record_captions(file)
        elif file.endswith(_JSON_LINES):
            yield from _json_sentences(file, prefix)
        else:
            for number, line in _lines(file):
                yield Item(f"{prefix}{number}", text=line)


def _lines(file: str) -> Iterator[tuple[int, str]]:
    with open(file, encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            yield number, line.rstrip("\n")


def _json_sentences(file: str, prefix: str) -> Iterator[Item]:
    for number, line in _lines(file):
        record = _parse(line)
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise UserError(f'{file} line {number} is not an object with a "text": mend the line')
        yield Item(_clean(str(record.get("id", f"{prefix}{number}"))), text=_clean(record["text"]))


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _record_images(shards: Sequence[str]) -> Iterator[Item]:
    for shard in shards:
        for record in read_records(shard):
            yield Item(record.image_id, path=_clean(record.path), contents=record.image)


def _record_captions(shard: str) -> Iterator[Item]:
    for record in read_records(shard):
        for number, caption in enumerate(record.captions):
            yield Item(f"{record.image_id}#{number}", text=caption)


def _clean(text: str) -> str:
    """Escapes what UTF-8 cannot hold; a file of such a name is then reported, not opened."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
