"""The benchmark of the classifier, small."""

from __future__ import annotations

import pytest

from tests.benchmarks.rows import check_rows
from tf_dpce.benchmarks import classifier
from tf_dpce.benchmarks.timing import Row
from tf_dpce.config import Config


def measured(*sizes: int) -> dict[str, Row]:
    rows = classifier.measure(Config(), sizes=sizes, dim=16, sampled=20, batch_size=4, rounds=2)
    check_rows(rows)
    return {row.name: row for row in rows}


def test_each_size_is_compared_with_the_smallest_and_with_the_exact_classifier():
    rows = measured(200, 400)
    assert rows["sampled, 200"].ratio.median == 1
    assert rows["sampled, 400"].ratio.to == "sampled, 200"
    assert rows["exact, 400"].ratio.to == "sampled, 400"
    # Rows and momentum there and back, and 4 + 4 logits a class there and back, of 4 bytes each:
    # of the drawn ones and the batch's, or of all.
    for name, classes in (("sampled, 200", 24), ("sampled, 400", 24), ("exact, 200", 200)):
        moved = classes * (4 * 16 + 4 * 4) * 4 / 2**20
        assert rows[f"{name}: must move"].median == pytest.approx(moved)


def test_what_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifier, "_free_bytes", lambda: 1000)
    assert not [name for name in measured(200) if name.startswith("exact")]
