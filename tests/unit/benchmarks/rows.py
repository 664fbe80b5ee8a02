"""What every benchmark's rows must satisfy."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.timing import Row


def check_rows(rows: Sequence[Row]) -> None:
    for row in rows:
        assert 0 < row.low <= row.median <= row.high, row
        assert row.name and row.unit
        if row.ratio:
            assert 0 < row.ratio.low <= row.ratio.median <= row.ratio.high, row
            # It names a row that is there; compared with itself it is 1 in every round.
            assert row.ratio.to in {other.name for other in rows}
            if row.ratio.to == row.name:
                assert row.ratio.median == row.ratio.low == row.ratio.high == 1
