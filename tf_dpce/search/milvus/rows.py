"""Records as rows of Milvus and back: types of columns, and the schema of a collection."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from tf_dpce.errors import UserError, shorten

if TYPE_CHECKING:
    import pymilvus

ID = "id"
VECTOR = "_embedding"
LONGEST = 65_535  # bytes of a text, Milvus's limit

_FIELD = re.compile(r"[A-Za-z0-9_]{1,99}")
_BATCH_ROWS = 1_000
_BATCH_NUMBERS = 2**21  # of the embeddings of a batch: 8 MiB; a server takes 64
_MOMENT = pa.timestamp("us")


def field_name(column: str) -> str:
    """Returns the field of a column, which is no word of Milvus's filters.

    Example:
        >>> field_name("id"), field_name("like"), field_name("a b")
        ('id', 'c_like', 'c_c8687a08aa5d6ed2')
    """
    if column == ID:
        return ID
    if _FIELD.fullmatch(column):
        return f"c_{column}"
    return "c_" + hashlib.sha256(column.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def collection_schema(columns: pa.Schema, dimension: int) -> pymilvus.CollectionSchema:
    """Returns the schema of a collection of one kind.

    Columns that are added later are keys of its dynamic field; filters name both alike.

    Args:
        columns: the columns of its records; `id` is the key.
        dimension: of what is stored, with the querybank's number.
    """
    from pymilvus import DataType, MilvusClient

    fields = {
        pa.bool_(): {"datatype": DataType.BOOL},
        pa.int64(): {"datatype": DataType.INT64},
        pa.float64(): {"datatype": DataType.DOUBLE},
        pa.string(): {"datatype": DataType.VARCHAR, "max_length": LONGEST},
    }
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field(ID, is_primary=True, **fields[pa.string()])
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dimension)
    for column in columns:
        # What is not known of any item has no type yet.
        if column.name != ID and not kinds.is_null(column.type):
            stored = fields[_stored_type(column.name, column.type)]
            schema.add_field(field_name(column.name), nullable=True, **stored)
    return schema


def to_rows(records: pa.Table, vectors: np.ndarray) -> Iterator[list[dict[str, Any]]]:
    """Yields batches of rows, each of a size that a server takes at once.

    Args:
        records: N rows with `id`.
        vectors: float32 `[N, dimension]`.

    Raises:
        UserError: a column has a type that Milvus has not, or a text is too long.
    """
    names = records.column_names
    stored = [_to_stored(name, records[name]) for name in names]
    columns = pa.table(stored, names=[field_name(name) for name in names])
    size = max(1, min(_BATCH_ROWS, _BATCH_NUMBERS // vectors.shape[1]))
    for start in range(0, len(vectors), size):
        rows = columns.slice(start, size).to_pylist()
        batch = zip(rows, vectors[start : start + size], strict=True)
        yield [{**_known(row), VECTOR: vector} for row, vector in batch]


def from_rows(rows: Sequence[dict[str, Any]], columns: pa.Schema) -> pa.Table:
    """Returns the records of rows; a column that a row lacks is None."""
    values = {
        column.name: _from_stored([row.get(field_name(column.name)) for row in rows], column)
        for column in columns
    }
    return pa.table(values, schema=columns)


def schema_to_text(columns: pa.Schema) -> str:
    """Returns a schema as text, exactly."""
    return base64.b64encode(columns.serialize().to_pybytes()).decode()


def schema_from_text(text: str) -> pa.Schema:
    """Reads what `schema_to_text` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def merge_columns(columns: pa.Schema, records: pa.Table) -> tuple[pa.Schema, pa.Table]:
    """Returns the columns of an index with new ones, and the records with its types.

    Raises:
        UserError: a value does not fit the type that its column has.
    """
    merged = {column.name: column for column in records.schema}
    merged |= {column.name: column for column in columns if not kinds.is_null(column.type)}
    order = dict.fromkeys([*columns.names, *merged])
    try:
        fitting = records.cast(pa.schema([merged[name] for name in records.column_names]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = f"a column has other values than in the index: {shorten(str(error), 120)}"
        raise UserError("index.column", message) from None
    return pa.schema([merged.get(name, pa.field(name, pa.null())) for name in order]), fitting


def _stored_type(name: str, kind: pa.DataType) -> pa.DataType:
    if kinds.is_boolean(kind):
        return pa.bool_()
    if kinds.is_integer(kind) or kinds.is_timestamp(kind) or kinds.is_date(kind):
        return pa.int64()
    if kinds.is_floating(kind):
        return pa.float64()
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_null(kind):
        return pa.string()
    message = f"the column {shorten(name)} of the type {kind} cannot be stored in Milvus"
    raise UserError("milvus.column", f"{message}: leave it out, or make texts or numbers of it")


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _to_stored(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    kind, stored = values.type, _stored_type(name, values.type)
    if kinds.is_date(kind):
        values = values.cast(_MOMENT)
    elif kinds.is_timestamp(kind):
        values = values.cast(pa.timestamp("us", kind.tz), safe=False)
    try:
        values = values.cast(stored)
    except pa.ArrowInvalid:
        message = f"the column {shorten(name)} has a number that is too large for Milvus"
        raise UserError("milvus.column", message) from None
    if stored == pa.string() and (pc.max(pc.binary_length(values)).as_py() or 0) > LONGEST:
        message = f"the column {shorten(name)} has a text of more than {LONGEST:,} bytes"
        raise UserError("milvus.column", f"{message}, which Milvus does not take: shorten it")
    return values


def _from_stored(values: list[Any], column: pa.Field) -> pa.Array:
    stored = pa.array(values, _stored_type(column.name, column.type))
    if kinds.is_date(column.type):
        return stored.cast(_MOMENT).cast(column.type)
    if kinds.is_timestamp(column.type):
        return stored.cast(pa.timestamp("us", column.type.tz)).cast(column.type)
    return pa.nulls(len(values)) if kinds.is_null(column.type) else stored.cast(column.type)
