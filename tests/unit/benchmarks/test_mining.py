"""The cost of mining, at a size for tests."""

from __future__ import annotations

import pytest

from benchmarks.mining import measure
from tests.unit.benchmarks.rows import check_rows
from tf_dpce.config import from_dict

TOWERS = {
    "image": {"backbone": "small", "input_size": 32, "head_dim": 0},
    "text": {"tower": "bag_of_words", "max_length": 16, "embedding_dim": 4, "widths": [4]},
    "model": {"output_dim": 8},
}


@pytest.mark.slow
def test_every_kind_of_negatives_is_timed_in_both_settings():
    steps = []
    rows = measure(
        from_dict(TOWERS),
        lambda done, total: steps.append((done, total)),
        batch_size=4,
        candidates=8,
        classes=24,
        words=30,
        rounds=2,
        image_rounds=1,
    )
    check_rows(rows)
    *timed, memory = rows
    assert [(row.name, row.ratio.to) for row in timed] == [
        ("cached, given", "cached, given"),
        ("cached, mined", "cached, given"),
        ("cached, batch", "cached, given"),
        ("end to end, given", "end to end, given"),
        ("end to end, mined", "end to end, given"),
        ("end to end, batch", "end to end, given"),
    ]
    assert memory.unit == "MiB"
    # A warm-up and two rounds, then a warm-up and one.
    assert steps == [(done, 5) for done in range(1, 6)]
