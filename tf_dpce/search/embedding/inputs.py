"""What is to be embedded: images by folder or glob, texts from files, or both from shards."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from tf_dpce.errors import UserError, shorten
from tf_dpce.files import read_at_most, sha256_lines
from tf_dpce.logging import logger
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.file_kinds import explain
from tf_dpce.preprocessing.status import MAX_BYTES, OK, REASONS, TOO_MANY_BYTES
from tf_dpce.remote_path import read_part
from tf_dpce.search.embedding.facts import image_facts
from tf_dpce.search.embedding.input_shards import Inputs, Item, RecordShard, listed_shards
from tf_dpce.search.embedding.patterns import (
    images_below,
    matching_files,
    other_endings,
    remote_matches,
)
from tf_dpce.search.embedding.records import (
    SHARD_ENDING,
    clean,
    folder_prefixes,
    prepared_shards,
    shard_facts,
)
from tf_dpce.search.embedding.store import IMAGES, TEXTS
from tf_dpce.search.embedding.texts import walk_texts
from tf_dpce.storage import Found, is_remote, local_path, rooted

CHANGED = "changed while it was read"


@dataclass(frozen=True)
class Refusal:
    """Why an item has no embedding; `status` is None if its file could not be read."""

    status: int | None
    reason: str


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
        return _image_files(files, os.path.commonpath(map(rooted, roots.values())))
    if len(shards) < len(files):
        message = f"--images names shards and images together ({shards[0]}): run embed twice"
        raise UserError("inputs.mixed", message, shards[0])
    return _image_records(shards)


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
    items = partial(walk_texts, list(files))
    # Walked once, so that a damaged line is found before anything is written.
    digest, total = hashlib.sha256(), 0
    for item in items():
        total += 1
        digest.update(json.dumps([item.id, item.text]).encode() + b"\n")
    if not total:
        raise UserError("inputs.empty", "there are no texts to embed: the files are empty")
    return Inputs(TEXTS, digest.hexdigest(), (total,), partial(listed_shards, items))


def read_item(item: Item) -> tuple[str | bytes | Refusal, dict[str, Any]]:
    """Returns what is encoded of an item, or why nothing can be, and the facts of an image."""
    if item.text is not None:
        return item.text, {}
    if item.contents is not None:
        # Of a shard. Nobody knows when the file was changed that it was made of.
        return _encodable(item.contents), image_facts(item.id, item.contents)
    found = _read_object(item) if is_remote(item.path) else read_file(item.path)
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
            contents = read_at_most(stream, MAX_BYTES + 1)
            after = os.fstat(stream.fileno())
    except OSError as error:
        return Refusal(None, f"cannot be read: {error.strerror}")
    if len(contents) > MAX_BYTES:
        return Refusal(TOO_MANY_BYTES, REASONS[TOO_MANY_BYTES])
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return Refusal(None, CHANGED)
    return contents, after.st_mtime_ns


def _read_object(item: Item) -> tuple[bytes, int | None] | Refusal:
    """Does the same for a remote file; whatever else fails there is no fault of the image."""
    if item.size > MAX_BYTES:
        return Refusal(TOO_MANY_BYTES, REASONS[TOO_MANY_BYTES])
    try:
        return read_part(item.path), item.modified
    except FileNotFoundError:
        return Refusal(None, f"cannot be read: {os.strerror(errno.ENOENT)}")


def _encodable(contents: bytes) -> bytes | Refusal:
    converted, code = to_png(contents)
    return converted if code == OK else Refusal(code, explain(code, contents))


def _find(
    patterns: Sequence[str], below: Callable[[str], list[str]]
) -> tuple[dict[str, Found | None], dict[str, str]]:
    """Returns the files of all patterns, each once, and for each pattern where its wildcards begin.

    Args:
        patterns: files, globs and folders.
        below: returns the files of a local folder that `prepare` did not write.

    Returns:
        The files, remote ones with what their listing says, and the roots.
    """
    found: dict[str, tuple[str, Found | None]] = {}
    roots: dict[str, str] = {}
    for pattern in patterns:
        if is_remote(pattern):
            objects, roots[pattern] = remote_matches(pattern)
            found |= {rooted(item.url): (item.url, item) for item in objects}
        else:
            files, roots[pattern] = _matches(str(local_path(pattern)), below)
            for file in files:
                found.setdefault(rooted(file), (file, None))
    if len({is_remote(file) for file, _ in found.values()}) > 1:
        message = f"{patterns[0]} and others lie in two storages: run embed twice"
        raise UserError("inputs.mixed", message, patterns[0])
    return dict(found.values()), roots


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


def _warn_of_other_endings(roots: Mapping[str, str], files: Iterable[str]) -> None:
    taken = set(map(rooted, files))
    for pattern, root in roots.items():
        if not is_remote(pattern) and (others := other_endings(pattern, taken)):
            logger.warning(f"{shorten(pattern)} leaves images out: {_describe(others, root)}")


def _describe(others: Sequence[str], root: str) -> str:
    first = shorten(os.path.basename(others[0]))
    return f"{len(others):,} have another ending ({first}); --images '{root or '.'}' takes all"


def _image_files(files: Mapping[str, Found | None], common: str) -> Inputs:
    items = partial(_file_items, files, common)
    lines = (
        f"{item.id}\t{item.path}\t{_state(file, found)}"
        for item, (file, found) in zip(items(), files.items(), strict=True)
    )
    return Inputs(IMAGES, sha256_lines(lines), (len(files),), partial(listed_shards, items))


def _state(file: str, found: Found | None) -> str:
    """Returns what changes when a file does; of a remote one by its listing."""
    if found is not None:
        return f"{found.size}\t{found.version}"
    state = os.stat(file)
    return f"{state.st_size}\t{state.st_mtime_ns}"


def _file_items(files: Mapping[str, Found | None], common: str) -> Iterator[Item]:
    for file, found in files.items():
        name = clean(Path(os.path.relpath(rooted(file), common)).as_posix())
        if found is None:
            yield Item(name, path=clean(os.path.abspath(file)))
        else:
            yield Item(name, path=file, size=found.size, modified=found.modified)


def _image_records(files: Sequence[str]) -> Inputs:
    """Returns the images of prepared shards, of which none is read now."""
    facts = list(shard_facts(files))
    prefixes = {file: clean(prefix) for file, prefix in folder_prefixes(files).items()}
    lines = (
        f"{prefixes[file]}\t{rooted(file)}\t{digest}"
        for file, (digest, _) in zip(files, facts, strict=True)
    )
    groups = tuple(count for _, count in facts)
    if not sum(groups):
        raise UserError("inputs.empty", "there are no images to embed: the files are empty")
    return Inputs(IMAGES, sha256_lines(lines), groups, partial(_record_shards, prefixes, groups))


def _record_shards(
    prefixes: Mapping[str, str], groups: Sequence[int], shard_size: int
) -> Iterator[RecordShard]:
    numbers = count()
    for (file, prefix), records in zip(prefixes.items(), groups, strict=True):
        for first in range(0, records, shard_size):
            size = min(shard_size, records - first)
            yield RecordShard(next(numbers), file, prefix, first, size)
