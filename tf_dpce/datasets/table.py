"""A user's own images and captions, in a CSV, TSV, JSON Lines or Parquet file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from tf_dpce.datasets.listing import (
    NO_NAME,
    Image,
    Origin,
    Rejected,
    check_same,
    usable_images,
)
from tf_dpce.datasets.names import ImageNames
from tf_dpce.datasets.splits import check_split, drawn_splits, read_split_file
from tf_dpce.datasets.text_files import (
    existing_file,
    read_lines,
    read_raw_lines,
    whole_characters,
)
from tf_dpce.errors import UserError

Row = tuple[Origin, dict[str, Any]]

_REQUIRED = ("image", "caption")


def read_table(
    annotations: Path, images: Path | None = None, split_file: Path | None = None, seed: int = 0
) -> Iterator[Image | Rejected]:
    """Reads a table with the columns `image` and `caption`, and optional `split` and `instance`.

    An image has several captions by several rows, or by a list in one (in CSV and TSV: a JSON
    list). A caption that is repeated for an image counts once. Without a split file or column the
    split is drawn by hash from the seed and the instance, which is the image if there is no such
    column: about 80, 10 and 10 of 100, and none is left empty if there are three.

    Args:
        annotations: a `.csv`, `.tsv`, `.jsonl` or `.parquet` file.
        images: folder that the images' paths start from; the table's own if None.
        split_file: lines of `image<TAB>split`; replaces a column `split`.
        seed: seed of the drawn split.

    Yields:
        The images, and a `Rejected` for each image or row that cannot be used.

    Raises:
        UserError: a file is missing or malformed, a split is unknown, or no image can be used.
    """
    names = ImageNames(images or annotations.parent)
    splits = read_split_file(split_file, names) if split_file else None
    listed: dict[str, Image] = {}
    captions: dict[str, dict[str, None]] = {}
    for origin, row in read_rows(annotations):
        name, path = names.find(_text(row, "image", origin))
        if not name:
            yield Rejected(str(origin), NO_NAME)
            continue
        split = None
        if splits is None and "split" in row:
            split = check_split(_text(row, "split", origin), origin)
        image = Image(name, path, (), split, _text(row, "instance", origin), origin)
        check_same(listed.setdefault(name, image), image)
        captions.setdefault(name, {}).update(dict.fromkeys(_captions(row["caption"], origin)))
    for name, image in listed.items():
        image.captions = list(captions[name]) if any(captions[name]) else []
    if splits is None:
        _draw_splits(listed.values(), seed)
    yield from usable_images(annotations, listed.values(), names, splits, split_file)


def _draw_splits(images: Collection[Image], seed: int) -> None:
    undrawn = [image for image in images if image.split is None]
    # An image without a caption will be rejected, so it fills no split.
    drawn = drawn_splits((image.instance for image in undrawn if image.captions), seed)
    for image in undrawn:
        image.split = drawn.get(image.instance)


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
    return reader(existing_file(path))


def _read_delimited(path: Path, delimiter: str) -> Iterator[Row]:
    reader = csv.DictReader(read_raw_lines(path), delimiter=delimiter, strict=True)
    try:
        while reader.fieldnames == []:
            # An empty line stands before the header: None makes the reader take the next one.
            reader.fieldnames = None
        if reader.fieldnames:
            reader.fieldnames = [name.strip() for name in reader.fieldnames]
            _check_columns(reader.fieldnames, Origin.of_line(path, reader.reader.line_num))
        # An empty line is no row.
        for row in reader:
            origin = Origin.of_line(path, reader.reader.line_num)
            if None in row or None in row.values():
                message = f"not {len(reader.fieldnames)} fields as in the header: put quotes around"
                message = f"{message} a field that holds {delimiter!r}"
                raise origin.error("table.fields", message)
            yield origin, row
    except csv.Error as error:
        origin = Origin.of_line(path, reader.reader.line_num)
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
