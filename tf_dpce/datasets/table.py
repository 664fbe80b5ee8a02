"""A user's own images and captions, in a CSV, TSV, JSON Lines or Parquet file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tf_dpce.datasets.pair import (
    IN_NO_SPLIT,
    NO_CAPTION,
    NO_NAME,
    SPLITS,
    Origin,
    Pair,
    Rejected,
)
from tf_dpce.datasets.splits import check_split, drawn_splits, image_name, read_split_file
from tf_dpce.datasets.text_files import (
    existing_file,
    existing_folder,
    read_lines,
    read_raw_lines,
    whole_characters,
)
from tf_dpce.errors import UserError

Row = tuple[Origin, dict[str, Any]]

_REQUIRED = ("image", "caption")
_UNDRAWN = ""


def read_table(
    table: Path, images: Path | None = None, split_file: Path | None = None, seed: int = 0
) -> Iterator[Pair | Rejected]:
    """Reads a table with the columns `image` and `caption`, and optional `split` and `instance`.

    An image has several captions by several rows, or by a list in one (in CSV and TSV: a JSON
    list). A caption that is repeated for an image counts once. Without a split file or column the
    split is drawn by hash from the seed and the instance, which is the image if there is no such
    column: about 80, 10 and 10 of 100, and none is left empty if there are three.

    Args:
        table: a `.csv`, `.tsv`, `.jsonl` or `.parquet` file.
        images: folder that the images' paths start from; the table's own if None.
        split_file: lines of `image<TAB>split`; replaces a column `split`.
        seed: seed of the drawn split.

    Yields:
        A `Pair` for each caption, a `Rejected` for each image or row that cannot be used.

    Raises:
        UserError: a file is missing or malformed, a split is unknown, or no row can be used.
    """
    folder = existing_folder(images or table.parent, "give that of the images as --images")
    splits = read_split_file(split_file) if split_file else None
    items = list(_items(table, folder, splits))
    pairs = [item for item in items if isinstance(item, Pair)]
    if not any(pair.caption for pair in pairs):
        message = f"{table} has no usable row: each needs an image and a caption"
        raise UserError("table.no_row", message, table)
    # An image without a caption will be rejected, so it fills no split.
    undrawn = (pair for pair in pairs if pair.split == _UNDRAWN and pair.caption)
    drawn = drawn_splits((pair.instance for pair in undrawn), seed)
    for item in items:
        if isinstance(item, Pair) and item.split == _UNDRAWN:
            item = replace(item, split=drawn.get(item.instance, SPLITS[0]))
        yield item


def _items(table: Path, folder: Path, splits: dict[str, str] | None) -> Iterator[Pair | Rejected]:
    # Each image once: its name, its path, and its captions so far. Millions of pairs share them.
    # A set of five captions, the usual number, takes three times the memory of a dict of five.
    seen: dict[str, tuple[str, Path, dict[str, None]]] = {}
    for origin, row in read_rows(table):
        image = image_name(_text(row, "image", origin))
        if not image:
            yield Rejected(str(origin), NO_NAME)
            continue
        listed = image in seen
        image, path, captions = seen.setdefault(image, (image, folder / image, {}))
        if splits is not None and image not in splits:
            if not listed:
                yield Rejected(str(path), IN_NO_SPLIT)
            continue
        split = _UNDRAWN
        if splits is not None:
            split = splits[image]
        elif "split" in row:
            split = check_split(_text(row, "split", origin), origin)
        instance = _text(row, "instance", origin) or image
        for caption in _captions(row["caption"], origin):
            if caption not in captions:
                captions[caption] = None
                yield Pair(image, path, caption, split, instance, origin)
    yield from (
        Rejected(str(folder / name), NO_CAPTION) for name in splits or () if name not in seen
    )


def _text(row: dict[str, Any], column: str, origin: Origin) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        message = f"{column} is {value!r}: it must be text or a whole number"
        raise origin.error("table.value", message)
    return whole_characters(str(value), origin)


def _captions(value: Any, origin: Origin) -> list[str]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        # A caption may open with a bracket too.
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            pass
    captions = value if isinstance(value, list) else [value]
    if not all(caption is None or isinstance(caption, str) for caption in captions):
        message = f"caption is {value!r}: it must be text or a list of texts"
        raise origin.error("table.value", message)
    return [whole_characters(caption or "", origin) for caption in captions]


def read_rows(path: Path) -> Iterator[Row]:
    """Yields the place and the values by column of each row of a table.

    Args:
        path: a `.csv`, `.tsv`, `.jsonl` or `.parquet` file; the first two with a header, and with
            double quotes around fields that hold the delimiter, a quote or a new line.

    Raises:
        UserError: the file is missing, of another kind or malformed, or lacks a column.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".csv": lambda path: _read_delimited(path, ","),
        ".tsv": lambda path: _read_delimited(path, "\t"),
        ".jsonl": _read_json_lines,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        message = f"{path} is no table: its name must end in {', '.join(readers)}"
        raise UserError("table.kind", message, path)
    return reader(existing_file(path, "give a table of images and captions"))


def _read_delimited(path: Path, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(read_raw_lines(path), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        # An empty line is no row.
        for fields in filter(None, reader):
            origin = Origin.of_line(path, reader.line_num)
            if not header:
                header = [name.strip() for name in fields]
                _check_columns(header, origin)
            elif len(fields) != len(header):
                message = f"{len(fields)} fields, {len(header)} in the header: put quotes around"
                raise origin.error("table.fields", f"{message} a field that holds {delimiter!r}")
            else:
                yield origin, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        origin = Origin.of_line(path, reader.line_num)
        raise origin.error("table.malformed", f"malformed, {error}: mend its quotes") from None


def _read_json_lines(path: Path) -> Iterator[Row]:
    for origin, line in read_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise origin.error("table.malformed", f"not JSON, {error}: mend the line") from None
        if not isinstance(row, dict):
            message = "no JSON object of column names and values: mend the line"
            raise origin.error("table.malformed", message)
        _check_columns(list(row), origin)
        yield origin, row


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as table:
            _check_columns(table.schema_arrow.names, Origin(path))
            rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield Origin(path, f"row {number}", number), row
    except (pyarrow.ArrowException, OSError) as error:
        message = f"{path} is no Parquet file that can be read: {error}"
        raise UserError("table.malformed", message, path) from None


def _check_columns(names: Sequence[str], origin: Origin) -> None:
    for name in _REQUIRED:
        if name not in names:
            message = f"no column {name!r} but {', '.join(names)}: give one this name, or add it"
            raise origin.error("table.columns", message)
