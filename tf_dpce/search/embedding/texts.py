"""Texts line by line, of text files, JSON Lines and prepared shards."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.search.embedding.input_shards import Item
from tf_dpce.search.embedding.records import SHARD_ENDING, clean, folder_prefixes, records
from tf_dpce.storage import local_file, rooted

_JSON_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".parquet", ".gz")
# How a table in a text file begins, such as Kaggle's captions.txt.
_TABLE_HEADER = re.compile(rb'(?:\xef\xbb\xbf)?"?(?:image\w*|file_?(?:name|path))"? *[,;|\t]', re.I)
_SNIFFED = 4096  # bytes in which a file that is no text has a NUL


def walk_texts(files: Sequence[str]) -> Iterator[Item]:
    """Yields the texts of files in their order.

    Raises:
        UserError: a file is a table, binary or damaged, or a line of JSON has no text.
    """
    folders = folder_prefixes([file for file in files if file.endswith(SHARD_ENDING)])
    for file, prefix in _prefixes(files).items():
        if file in folders:
            yield from _record_captions(file, folders[file])
            continue
        with local_file(file) as path:
            yield from _lines(file, path, prefix)


def _prefixes(files: Sequence[str]) -> dict[str, str]:
    """Returns the beginning of the ids of each file's lines; empty if there is only one file."""
    if len(files) == 1:
        return {files[0]: ""}
    common = os.path.commonpath([os.path.dirname(rooted(file)) for file in files])
    names = {file: Path(os.path.relpath(rooted(file), common)).as_posix() for file in files}
    return {file: f"{clean(name)}:" for file, name in names.items()}


def _lines(file: str, path: str, prefix: str) -> Iterator[Item]:
    """Yields the lines of a file, which lies at `path`, maybe as a copy."""
    _check_text(file, path)
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            name, text = f"{prefix}{number}", line.rstrip("\n")
            if file.endswith(_JSON_LINES):
                yield _json_item(file, number, name, text)
            else:
                yield Item(name, text=text)


def _check_text(file: str, path: str) -> None:
    with open(path, "rb") as stream:
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
    return Item(clean(str(record.get("id", name))), text=clean(record["text"]))


def _record_captions(shard: str, prefix: str) -> Iterator[Item]:
    for record in records(shard):
        for number, caption in enumerate(record.captions):
            yield Item(f"{clean(prefix)}{record.image_id}#{number}", text=caption)
