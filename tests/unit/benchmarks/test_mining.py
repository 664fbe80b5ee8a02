"""The cost of mining, at a size for tests."""

from __future__ import annotations

import pytest

from benchmarks.mining import measure
from tests.unit.benchmarks.rows import check_rows
from tf_dpce.config import from_dict

TOWERS = {
    "image": {"backbone": "small", "input_size": 32, "head_dim": 0},
    "text": {"tower": "bag_of_words", "max_length": 16, "word_dim": 4, "widths": [4]},
    "model": {"output_dim": 8},
}


@pytest.mark.full
def test_every_kind_of_negatives_is_timed_in_both_settings():
    sizes = {"batch_size": 4, "candidates": 8, "classes": 24, "words": 30}
    rows = measure(from_dict(TOWERS), **sizes, rounds=2, image_rounds=1)
    check_rows(rows)
    *timed, memory = rows
    assert [(row.name, row.ratio.to) for row in timed] == [
        (f"{setting}, {negatives}", f"{setting}, paired")
        for setting in ("cached", "end to end")
        for negatives in ("paired", "mined", "batch")
    ]
    assert memory.unit == "MiB"
