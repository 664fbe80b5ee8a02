"""The files of a table: which there are, of what kind, and their lines in any usual encoding."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.listing import Origin
from tf_dpce.datasets.splits import known_split
from tf_dpce.datasets.text_files import existing_file
from tf_dpce.errors import UserError
from tf_dpce.logging import logger
from tf_dpce.remote_path import AnyPath, matching

DELIMITED, JSON, PARQUET = "delimited", "json", "parquet"

_KINDS = {
    ".csv": DELIMITED,
    ".tsv": DELIMITED,
    ".txt": DELIMITED,
    ".jsonl": JSON,
    ".ndjson": JSON,
    ".json": JSON,
    ".parquet": PARQUET,
}
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GZIP = b"\x1f\x8b"
_BUFFER = 1 << 16  # bytes


def table_files(annotations: AnyPath) -> list[AnyPath]:
    """Returns the files of a table: one, those of a folder, or those that match a pattern.

    A folder holds `metadata` files beside the images, in it or in the folders of its splits; or
    files that are named after splits, such as `train.csv`; or Parquet files at any depth.

    Raises:
        UserError: there is no file.
    """
    if annotations.is_dir():
        found = _metadata(annotations) or split_tables(annotations)
        found = found or sorted(annotations.rglob("*.parquet"))
        if not found:
            message = f"{annotations} holds no Parquet file and no metadata.csv or metadata.jsonl"
            raise UserError("table.kind", f"{message}: name a table", annotations)
        return found
    if annotations.exists():
        return [existing_file(annotations)]
    matches = [path for path in matching(annotations) if path.is_file()]
    return matches or [existing_file(annotations)]


def _metadata(root: AnyPath) -> list[AnyPath]:
    """Returns one `metadata` file of each folder, of those that `_KINDS` names the first."""
    found: list[AnyPath] = []
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        paths = (folder / f"metadata{suffix}" for suffix in _KINDS)
        present = [path for path in paths if path.is_file()]
        found += present[:1]
        for path in present[1:]:
            logger.warning(f"{path} is left out: {present[0].name} is read")
    return found


def split_tables(folder: AnyPath) -> list[AnyPath]:
    """Returns the tables right in a folder that are named after splits, such as `train.csv`."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in (".csv", ".tsv", ".jsonl") and known_split(path.stem)
    ]


def table_kind(path: AnyPath) -> str:
    """Returns whether a file is `DELIMITED`, `JSON` or `PARQUET`, by its name.

    Raises:
        UserError: it is of another kind.
    """
    suffix = path.suffix.lower()
    kind = _KINDS.get(Path(path.stem).suffix.lower() if suffix == ".gz" else suffix)
    if kind is None or (kind == PARQUET and suffix == ".gz"):
        message = f"{path} is no table: its name must end in {', '.join(_KINDS)}"
        raise UserError("table.kind", message, path)
    return kind


def text_lines(path: AnyPath) -> Iterator[tuple[Origin, str]]:
    """Yields the place and text of each line, without its end.

    A file may be packed by gzip. Its encoding is UTF-8, or UTF-16 with a byte-order mark. Bytes
    that are not UTF-8 become halves of characters, as `surrogateescape` makes them, so that a
    reader can reject a row alone: no other encoding is guessed, because a wrong guess would spoil
    words in silence. If there is no line feed, lines end with carriage returns.

    Raises:
        UserError: the file ends too early, or is spoilt in its packing or its wide characters.
    """
    number = 0
    try:
        with path.open("rb", _BUFFER) as raw:
            packed = raw.peek(2).startswith(_GZIP)
            stream = io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER) if packed else raw
            start = stream.peek(_BUFFER)
            encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "")
            wide = encoding == "utf-16"
            if wide:
                logger.info(f"{path}: read as UTF-16")
            errors = "strict" if wide else "surrogateescape"
            head = start.decode(encoding or "utf-8", "ignore")
            newline = "\r" if "\r" in head and "\n" not in head else "\n"
            text = io.TextIOWrapper(stream, encoding or "utf-8", errors, newline)
            for number, line in enumerate(text, start=1):
                yield Origin.of_line(path, number), line.rstrip("\r\n")
    except UnicodeError:
        origin = Origin.of_line(path, number + 1)
        raise origin.error("dataset.encoding", "not UTF-16: save it as UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        origin = Origin.of_line(path, number + 1)
        message = f"cannot be unpacked, {error}: fetch it again"
        raise origin.error("table.malformed", message) from None
