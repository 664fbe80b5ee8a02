"""Tables in JSON: an object a line, or one list of objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from tf_dpce.datasets.columns import ColumnFinder, Columns, Record
from tf_dpce.datasets.listing import Origin, Rejected
from tf_dpce.datasets.table_files import text_lines
from tf_dpce.errors import UserError
from tf_dpce.remote_path import AnyPath

NO_OBJECT = "no JSON object of column names and values"
NO_COLUMNS = "no column of images or of captions"


def read_json_table(path: AnyPath, finder: ColumnFinder) -> Iterator[Record | Rejected]:
    """Yields each row of a table, or a `Rejected` for what is no row; an empty line is none.

    The first object that has columns of images and captions decides which they are.

    Raises:
        UserError: no object has them, or a file that is one list cannot be read.
    """
    columns: Columns | None = None
    fault: UserError | None = None
    for origin, row in _objects(path):
        if not isinstance(row, dict):
            yield Rejected(str(origin), NO_OBJECT)
            continue
        names = list(row)
        if columns is None:
            try:
                columns = finder.find(names, origin)
            except UserError as error:
                fault = fault or error
                yield Rejected(str(origin), NO_COLUMNS)
                continue
        yield columns.record(origin, names, row.values())
    if columns is None and fault:
        raise fault


def _objects(path: AnyPath) -> Iterator[tuple[Origin, Any]]:
    """Yields the place and value of each row; None for a line that is not JSON."""
    lines = text_lines(path)
    first = next((item for item in lines if item[1].strip()), None)
    if first is None:
        return
    lines = chain([first], lines)
    # Some write JSON Lines into `.json`, but a list in `.jsonl` is a line of the wrong kind.
    if ".json" in path.suffixes and first[1].lstrip().startswith("["):
        yield from _items(path, lines, first[0].line)
        return
    for origin, line in lines:
        if line.strip():
            try:
                yield origin, json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError):
                yield origin, None


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """Returns an object; the pairs themselves, which no cell may be, if a name is there twice."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else pairs


def _items(
    path: AnyPath, lines: Iterable[tuple[Origin, str]], start: int
) -> Iterator[tuple[Origin, Any]]:
    try:
        text = "\n".join(line for _, line in lines)
        rows = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        line = start - 1 + getattr(error, "lineno", 1)
        message = f"{path} line {line}: not JSON, {getattr(error, 'msg', 'nested too deeply')}"
        raise UserError("table.malformed", f"{message}: mend it", path, line) from None
    for number, row in enumerate(rows, start=1):
        yield Origin(path, f"row {number}", number), row
