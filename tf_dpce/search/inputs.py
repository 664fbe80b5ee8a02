"""What is to be embedded: images by folder or glob, texts from files, or both from shards."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tf_dpce.errors import UserError, shorten
from tf_dpce.files import sha256_lines
from tf_dpce.logging import logger
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.file_kinds import explain
from tf_dpce.preprocessing.status import MAX_BYTES, OK, REASONS, TOO_MANY_BYTES
from tf_dpce.search.embedding_store import IMAGES, TEXTS
from tf_dpce.search.facts import image_facts
from tf_dpce.search.patterns import images_below, matching_files, other_endings
from tf_dpce.search.records import SHARD_ENDING, folder_prefixes, prepared_shards, records

_JSON_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".parquet", ".gz")
# How a table in a text file begins, such as Kaggle's captions.txt.
_TABLE_HEADER = re.compile(rb'(?:\xef\xbb\xbf)?"?(?:image\w*|file_?(?:name|path))"? *[,;|\t]', re.I)
CHANGED = "changed while it was read"
_SNIFFED = 4096  # bytes in which a file that is no text has a NUL


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

    The id of a file is its path below the common folder of all that is given: of the folders, and
    of those in which the wildcards of patterns begin. The id of a record is its `image_id`, after
    the name of its folder if there are several. So ids are unique, and depend on what is given,
    not on which images there are. The digest covers id, path, size and time of change of files,
    and the content of records.

    Args:
        patterns: folders of images, of which all below are taken (see `images_below`); globs (`**`
            crosses folders); folders that `prepare` wrote, or `*.tfrecord`.

    Raises:
        UserError: a pattern matches nothing, or shards are mixed with images.

    Example:
        >>> find_images(["images"]).total, find_images(["images/**/*.jpg"]).total
        (50, 50)
    """
    files, roots = _find(patterns, _images_below)
    shards = [file for file in files if file.endswith(SHARD_ENDING)]
    if not shards:
        _warn_of_other_endings(roots, files)
        return _image_files(files, _common(roots.values()))
    if len(shards) < len(files):
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
        UserError: a pattern matches nothing, a file is a table or binary, or a line of JSON has no
            text.
    """
    files, _ = _find(patterns, _no_texts_below)
    return _survey(TEXTS, partial(_texts, _prefixes(files)))


def read_item(item: Item) -> tuple[str | bytes | Refusal, dict[str, Any]]:
    """Returns what is encoded of an item, or why nothing can be, and the facts of an image."""
    if item.text is not None:
        return item.text, {}
    if item.contents is not None:
        # Of a shard. Nobody knows when the file was changed that it was made of.
        return _encodable(item.contents), image_facts(item.id, item.contents)
    found = read_file(item.path)
    if isinstance(found, Refusal):
        return found, {}
    contents, modified = found
    return _encodable(contents), image_facts(item.id, contents, modified)


def read_image(path: str) -> bytes | Refusal:
    """Returns the bytes of an image file, or of the PNG that `to_png` makes of it."""
    found = read_file(path)
    return found if isinstance(found, Refusal) else _encodable(found[0])


def read_file(path: str) -> tuple[bytes, int] | Refusal:
    """Returns the bytes of an image file, and when it was changed, in nanoseconds since 1970.

    Of a file over the limit no more than that is read.
    """
    try:
        with open(path, "rb") as stream:
            before = os.fstat(stream.fileno())
            contents = stream.read(MAX_BYTES + 1)
            after = os.fstat(stream.fileno())
    except OSError as error:
        return Refusal(None, f"cannot be read: {error.strerror}")
    if len(contents) > MAX_BYTES:
        return Refusal(TOO_MANY_BYTES, REASONS[TOO_MANY_BYTES])
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return Refusal(None, CHANGED)
    return contents, after.st_mtime_ns


def _encodable(contents: bytes) -> bytes | Refusal:
    converted, code = to_png(contents)
    return converted if code == OK else Refusal(code, explain(code, contents))


def _find(
    patterns: Sequence[str], below: Callable[[str], list[str]]
) -> tuple[list[str], dict[str, str]]:
    """Returns the files of all patterns, each once, and for each pattern where its wildcards begin.

    Args:
        patterns: files, globs and folders.
        below: returns the files of a folder that `prepare` did not write.
    """
    found: dict[str, str] = {}
    roots: dict[str, str] = {}
    for pattern in patterns:
        files, roots[pattern] = _matches(pattern, below)
        for file in files:
            found.setdefault(os.path.abspath(file), file)
    return list(found.values()), roots


def _matches(pattern: str, below: Callable[[str], list[str]]) -> tuple[list[str], str]:
    if os.path.isdir(pattern):
        return prepared_shards(Path(pattern)) or below(pattern), pattern
    files, root = matching_files(pattern)
    if not files:
        message = f"{pattern} matches no file: quote it, and cross folders with **"
        if others := other_endings(pattern, ()):
            message = f"{pattern} matches no file, but {_describe(others, root)}"
        raise UserError("inputs.no_match", message, pattern)
    return files, root


def _images_below(folder: str) -> list[str]:
    files = images_below(folder)
    if not files:
        message = f"{folder} holds no file that is named like an image: give another folder"
        raise UserError("inputs.no_match", message, folder)
    return files


def _no_texts_below(folder: str) -> list[str]:
    message = f"{folder} is not a folder that prepare wrote: name files of texts"
    raise UserError("inputs.not_prepared", message, folder)


def _warn_of_other_endings(roots: Mapping[str, str], files: Sequence[str]) -> None:
    taken = set(map(os.path.abspath, files))
    for pattern, root in roots.items():
        if others := other_endings(pattern, taken):
            logger.warning(f"{shorten(pattern)} leaves images out: {_describe(others, root)}")


def _describe(others: Sequence[str], root: str) -> str:
    first = shorten(os.path.basename(others[0]))
    return f"{len(others):,} have another ending ({first}); --images '{root or '.'}' takes all"


def _common(folders: Iterable[str]) -> str:
    return os.path.commonpath([os.path.abspath(folder) for folder in folders])


def _image_files(files: Sequence[str], common: str) -> Inputs:
    items = partial(_file_items, files, common)
    states = ((item, os.stat(file)) for item, file in zip(items(), files, strict=True))
    lines = (f"{item.id}\t{item.path}\t{s.st_size}\t{s.st_mtime_ns}" for item, s in states)
    return Inputs(IMAGES, sha256_lines(lines), len(files), items)


def _file_items(files: Sequence[str], common: str) -> Iterator[Item]:
    for path in map(os.path.abspath, files):
        yield Item(_clean(Path(os.path.relpath(path, common)).as_posix()), path=_clean(path))


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
    common = _common(map(os.path.dirname, files))
    names = {file: Path(os.path.relpath(file, common)).as_posix() for file in files}
    return {file: f"{_clean(name)}:" for file, name in names.items()}


def _texts(prefixes: Mapping[str, str]) -> Iterator[Item]:
    shards = [file for file in prefixes if file.endswith(SHARD_ENDING)]
    folders = folder_prefixes(shards)
    for file, prefix in prefixes.items():
        if file in folders:
            yield from _record_captions(file, folders[file])
            continue
        _check_text(file)
        with open(file, encoding="utf-8-sig", errors="replace") as stream:
            for number, line in enumerate(stream, 1):
                name, text = f"{prefix}{number}", line.rstrip("\n")
                if file.endswith(_JSON_LINES):
                    yield _json_item(file, number, name, text)
                else:
                    yield Item(name, text=text)


def _check_text(file: str) -> None:
    with open(file, "rb") as stream:
        head = stream.read(_SNIFFED)
    if b"\0" in head or _TABLE_HEADER.match(head) or file.lower().endswith(_TABLES):
        message = f"{file} is no text file: write one text in each line, or prepare the table"
        raise UserError("inputs.not_text", message, file)


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
    for shard, prefix in folder_prefixes(shards).items():
        for record in records(shard):
            path = os.path.abspath(os.fsdecode(record.path))
            yield Item(_clean(prefix) + record.image_id, _clean(path), contents=record.image)


def _record_captions(shard: str, prefix: str) -> Iterator[Item]:
    for record in records(shard):
        for number, caption in enumerate(record.captions):
            yield Item(f"{_clean(prefix)}{record.image_id}#{number}", text=caption)


def _clean(text: str) -> str:
    """Escapes what UTF-8 cannot hold; a file of such a name is then reported, not opened."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
