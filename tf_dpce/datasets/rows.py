"""Rows of CSV, TSV, JSON Lines and Parquet files, with the place of each for messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tf_dpce.datasets.lines import read_lines, read_raw_lines
from tf_dpce.errors import UserError

Row = tuple[str, dict[str, Any]]
"""The file and line (in Parquet: row) for messages, and the values by column."""


def read_rows(path: Path, required: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of a table, whose kind is told by the end of its name.

    Args:
        path: a `.csv`, `.tsv`, `.jsonl` or `.parquet` file; the first two with a header, and with
            double quotes around fields that hold the delimiter, a quote or a new line.
        required: columns that must be there.

    Raises:
        UserError: the file is missing, of another kind or malformed, or lacks a column.
    """
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise UserError(f"{path} is no table: its name must end in {', '.join(_READERS)}")
    if not path.is_file():
        raise UserError(f"{path} is not a file: give a table of images and captions")
    return _READERS[kind](path, required)


def _read_csv(path: Path, required: Sequence[str]) -> Iterator[Row]:
    return _read_delimited(path, required, ",")


def _read_tsv(path: Path, required: Sequence[str]) -> Iterator[Row]:
    return _read_delimited(path, required, "\t")


def _read_delimited(path: Path, required: Sequence[str], delimiter: str) -> Iterator[Row]:
    lines = (line for _, line in read_raw_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for fields in reader:
            where = f"{path} line {reader.line_num}"
            if not fields:
                continue
            if header is None:
                header = [name.strip() for name in fields]
                _check_columns(header, required, where)
            elif len(fields) != len(header):
                raise UserError(
                    f"{where} has {len(fields)} fields, the header {len(header)}: put quotes "
                    f"around a field that holds {delimiter!r}"
                )
            else:
                yield where, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        where = f"{path} line {reader.line_num}"
        raise UserError(f"{where} is malformed, {error}: mend its quotes") from None


def _read_json_lines(path: Path, required: Sequence[str]) -> Iterator[Row]:
    for number, line in read_lines(path):
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON, {error}: mend the line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where} is no JSON object of column names and values")
        _check_columns(list(row), required, where)
        yield where, row


def _read_parquet(path: Path, required: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as table:
            _check_columns(table.schema_arrow.names, required, str(path))
            number = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is no Parquet file that can be read: {error}") from None


def _check_columns(names: Sequence[str], required: Sequence[str], where: str) -> None:
    missing = [name for name in required if name not in names]
    if missing:
        has = ", ".join(names)
        raise UserError(
            f"{where} has no column {missing[0]!r}, it has {has}: give one this name, or add it"
        )


_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}
