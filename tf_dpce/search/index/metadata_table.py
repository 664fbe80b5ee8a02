"""A table of further columns of an index, which are joined to its items by path or id."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, json, parquet, types

from tf_dpce.datasets.table_files import JSON, PARQUET, table_kind, text_lines
from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger
from tf_dpce.search.embedding.store import IMAGES, TEXTS, record_schema
from tf_dpce.search.index.segment_files import one_type, unified

_DELIMITERS = (",", ";", "\t", "|")
_KEYS = ("path", "id")
# Arrow counts the rows of CSV from 1, those of JSON from 0.
_ROW = re.compile(r"\bRow #(\d+)|\bin row (\d+)")


class MetadataTable:
    """The rows of a table, and which of them belong to an item of the index.

    Args:
        path: a table in CSV, TSV, JSON Lines or Parquet, with a column `path` or `id`. A `path` is
            that of an image as it was embedded, or the image's id.

    Raises:
        UserError: the table cannot be read, has neither column, or two rows for one item.

    Example:
        >>> import pyarrow as pa
        >>> written = Path("places.csv").write_text("id,city\\n7.jpg,Rome\\n")
        >>> table = MetadataTable(Path("places.csv"))
        >>> table.join(pa.table({"id": ["6.jpg", "7.jpg"]}))["city"].to_pylist()
        [None, 'Rome']
    """

    def __init__(self, path: Path) -> None:
        table = _read(path)
        key = next((name for name in _KEYS if name in table.column_names), None)
        if key is None:
            raise _mistake(path, f"has no column {' or '.join(_KEYS)}: add one", 1)
        own = {*record_schema(IMAGES).names, *record_schema(TEXTS).names}.difference(_KEYS)
        if left := [name for name in table.column_names if name in own]:
            logger.warning(f"{path}: left out what the index has itself: {', '.join(left)}")
        self._path, self._key = path, key
        self._keys = table[key].combine_chunks()
        self._columns = table.select([n for n in table.column_names if n not in (*_KEYS, *left)])
        self._matched = np.zeros(len(table), bool)
        counts = self._keys.drop_null().value_counts()
        repeated = np.flatnonzero(counts.field("counts").to_numpy() > 1)
        if len(repeated):
            named = shorten(counts[int(repeated[0])]["values"].as_py())
            raise _mistake(path, f"has two rows with the {key} {named}: remove one")

    def join(self, records: pa.Table) -> pa.Table:
        """Returns records with the columns of this table, empty for those that have no row.

        Args:
            records: N rows, which have an `id` and perhaps a `path`.

        Raises:
            UserError: a column has values of another type there.
        """
        rows = pc.index_in(records["id"], value_set=self._keys, skip_nulls=True)
        if self._key in records.column_names:
            rows = pc.coalesce(
                pc.index_in(records[self._key], value_set=self._keys, skip_nulls=True), rows
            )
        self._matched[rows.drop_null().to_numpy()] = True
        found = self._columns.take(rows.combine_chunks())
        for name in found.column_names:
            values = found[name]
            if name in records.column_names:
                before = records[name]
                kinds = [pa.schema([(name, column.type)]) for column in (before, values)]
                kind = unified(kinds).field(name).type
                # An earlier table's value stays if this one has no row for the item.
                with one_type():
                    values, before = values.cast(kind), before.cast(kind)
                values = pc.if_else(pc.is_valid(rows), values, before)
                records = records.drop_columns([name])
            records = records.append_column(name, values)
        return records

    def report(self) -> None:
        """Logs how many rows belong to no item that was joined."""
        missed = np.flatnonzero(~self._matched)
        if len(missed):
            named = shorten(self._keys[int(missed[0])].as_py())
            logger.warning(
                f"{self._path}: {len(missed):,} of {len(self._matched):,} rows match no item, such "
                f"as {named}"
            )


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise UserError("index.metadata", f"{path} is no file: name a table", path)
    kind = table_kind(path)
    try:
        table = _parsed(path, kind)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        found = _ROW.search(str(error))
        line = found and int(found[1] or int(found[2]) + 1)
        message = f"cannot be read: {shorten(str(error), 160)}: correct it"
        raise _mistake(path, message, line) from None
    names = table.column_names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _mistake(path, f"has two columns {shorten(twice)}: rename one", 1)
    return _plain(table, path)


def _parsed(path: Path, kind: str) -> pa.Table:
    if kind == PARQUET:
        return parquet.read_table(path)
    if kind == JSON:
        return json.read_json(path)
    keys = dict.fromkeys(_KEYS, pa.string())
    _, header = next(text_lines(path), (None, ""))
    return csv.read_csv(
        path,
        # One thread, which names the row of a mistake.
        csv.ReadOptions(use_threads=False),
        csv.ParseOptions(delimiter=max(_DELIMITERS, key=header.count), newlines_in_values=True),
        csv.ConvertOptions(column_types=keys, strings_can_be_null=True, null_values=[""]),
    )


def _plain(table: pa.Table, path: Path) -> pa.Table:
    """Returns a table whose columns are numbers, texts, truth values and points in time alone."""
    for place, name in enumerate(table.column_names):
        kind = pa.string() if name in _KEYS else _plain_type(table[name].type)
        if kind is None:
            message = f"column {shorten(name)} holds no numbers, texts or dates: remove it"
            raise _mistake(path, message)
        try:
            table = table.set_column(place, name, table[name].cast(kind))
        except pa.ArrowException as error:
            message = f"column {shorten(name)} cannot be read: {shorten(str(error))}: correct it"
            raise _mistake(path, message) from None
    return table


def _plain_type(kind: Any) -> Any:
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    tests = (
        (types.is_boolean, pa.bool_()),
        (types.is_integer, pa.int64()),
        (lambda kind: types.is_floating(kind) or types.is_decimal(kind), pa.float64()),
        (lambda kind: types.is_timestamp(kind) or types.is_date(kind), pa.timestamp("us")),
        # A column without any value, and bytes that are UTF-8 if they can be read at all.
        (lambda kind: types.is_null(kind) or types.is_time(kind), pa.string()),
        (lambda kind: types.is_string(kind) or types.is_large_string(kind), pa.string()),
        (lambda kind: types.is_binary(kind) or types.is_string_view(kind), pa.string()),
    )
    return next((plain for test, plain in tests if test(kind)), None)


def _mistake(path: Path, what: str, line: int | None = None) -> UserError:
    return UserError("index.metadata", f"{path} {what}", path, line)
