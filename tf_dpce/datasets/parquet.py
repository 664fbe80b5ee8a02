"""Tables in Parquet, which may hold the images themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tf_dpce.datasets.cells import NOT_UTF8
from tf_dpce.datasets.columns import ColumnFinder, Record
from tf_dpce.datasets.listing import Origin, Rejected
from tf_dpce.errors import UserError, shorten
from tf_dpce.remote_path import AnyPath
from tf_dpce.storage import local_file

if TYPE_CHECKING:
    from pyarrow import RecordBatch

_BATCH = 32  # rows; those that hold images are large


def read_parquet(path: AnyPath, finder: ColumnFinder) -> Iterator[Record | Rejected]:
    """Yields each row of a table, or a `Rejected` for what is no row.

    One page of the file is in memory at a time: about a megabyte, or a thousand rows.

    Raises:
        UserError: the file cannot be read, or lacks a column.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        # A column of images is read page by page, not as a whole.
        with (
            local_file(str(path)) as copy,
            parquet.ParquetFile(copy, buffer_size=1 << 20, pre_buffer=False) as table,
        ):
            names = table.schema_arrow.names
            columns = finder.find(names, Origin(path))
            wanted = [name for name in names if columns.role(name)]
            number = 0
            for batch in table.iter_batches(_BATCH, columns=wanted):
                for row in _rows(batch):
                    number += 1
                    origin = Origin(path, f"row {number}", number)
                    if row is None:
                        yield Rejected(str(origin), NOT_UTF8)
                    else:
                        yield columns.record(origin, batch.schema.names, row)
            # A damaged page can end before its last row without an error.
            if number != table.metadata.num_rows:
                raise ValueError(f"it has {number} of its {table.metadata.num_rows} rows")
    # The names of a damaged file need not be UTF-8.
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        message = f"{path} is no Parquet file that can be read: {shorten(str(error))}"
        raise UserError("table.malformed", message, path) from None


def _rows(batch: RecordBatch) -> Iterator[tuple[Any, ...] | None]:
    """Yields each row, None if a text of it is not UTF-8."""
    try:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            yield None
        else:
            for number in range(batch.num_rows):
                yield from _rows(batch.slice(number, 1))
