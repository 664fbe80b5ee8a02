"""Tables in Parquet, which may hold the images themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_dpce.datasets.cells import NOT_UTF8
from tf_dpce.datasets.columns import ColumnFinder, Record, plain_name
from tf_dpce.datasets.listing import Origin, Rejected
from tf_dpce.errors import UserError, shorten

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ColumnSchema, ParquetFile

_BATCH = 32  # rows; those that hold images are large


def read_parquet(path: Path, finder: ColumnFinder) -> Iterator[Record | Rejected]:
    """Yields each row of a table, or a `Rejected` for what is no row.

    One page of the file is in memory at a time: about a megabyte, or a thousand rows.

    Raises:
        UserError: the file cannot be read, or lacks a column.
    """
    import pyarrow

    try:
        with _opened(path) as table:
            names = table.schema_arrow.names
            columns = finder.find(names, Origin(path))
            finder.state(path, columns, names)
            wanted = columns.wanted(names)
            number = 0
            for batch in table.iter_batches(_BATCH, columns=wanted):
                for row in _rows(batch):
                    number += 1
                    origin = Origin(path, f"row {number}", number)
                    if row is None:
                        yield Rejected(str(origin), NOT_UTF8)
                    else:
                        yield columns.record(origin, list(row), row.values())
            # A damaged page can end before its last row without an error.
            if number != table.metadata.num_rows:
                raise ValueError(f"it has {number} of its {table.metadata.num_rows} rows")
    # The names of a damaged file need not be UTF-8.
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _malformed(path, error) from None


def image_bytes(path: Path, finder: ColumnFinder) -> int:
    """Returns the number of bytes of the images that a table holds, zero if it holds their names.

    Raises:
        UserError: the file cannot be read, or lacks a column.
    """
    import pyarrow

    try:
        with _opened(path) as table:
            image = finder.find(table.schema_arrow.names, Origin(path)).image
            metadata = table.metadata
            leaves = [
                number
                for number in range(metadata.num_columns)
                if _holds_images(metadata.schema.column(number), image)
            ]
            groups = map(metadata.row_group, range(metadata.num_row_groups))
            columns = (group.column(number) for group in groups for number in leaves)
            return sum(column.total_uncompressed_size for column in columns)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _malformed(path, error) from None


def _opened(path: Path) -> ParquetFile:
    from pyarrow import parquet

    # A column of images is read page by page, not as a whole.
    return parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)


def _holds_images(leaf: ColumnSchema, image: str) -> bool:
    # A text is stored in the same way, but its logical type says so.
    is_bytes = leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"
    return is_bytes and plain_name(leaf.path.partition(".")[0]) == image


def _rows(batch: RecordBatch) -> Iterator[dict[str, Any] | None]:
    """Yields each row, None if a text of it is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError:
                yield None


def _malformed(path: Path, error: Exception) -> UserError:
    message = f"{path} is no Parquet file that can be read: {shorten(str(error))}"
    return UserError("table.malformed", message, path)
