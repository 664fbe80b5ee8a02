"""Writes tables for tests, and reads them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from tf_dpce.datasets.listing import Image, Rejected, gather
from tf_dpce.datasets.table import read_table


def write(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> Path:
    """Writes a table in the form that the name of its file says."""
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if ".json" in path.suffixes:
        text = json.dumps(rows, indent=1)
    elif path.suffix in (".jsonl", ".ndjson"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        stream = io.StringIO()
        delimiter = "\t" if ".tsv" in path.suffixes else delimiter
        writer = csv.DictWriter(stream, rows[0], delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = stream.getvalue()
    contents = text.encode()
    path.write_bytes(gzip.compress(contents) if path.suffix == ".gz" else contents)
    return path


def read(*arguments: Any, **options: Any) -> tuple[list[Image], list[Rejected]]:
    """Returns what `read_table` yields."""
    return gather(read_table(*arguments, **options))


def captions(path: Path, **options: Any) -> list[str]:
    """Returns the captions of the sole image of a table."""
    ((image,), _) = read(path, **options)
    return image.captions
