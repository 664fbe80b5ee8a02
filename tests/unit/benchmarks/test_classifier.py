"""The benchmark of the classifier, small."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import classifier
from benchmarks.timing import Row
from tests.unit.benchmarks.rows import check_rows
from tf_dpce.config import Config
from tf_dpce.training.partial_fc import PartialFC


def measured(*sizes: int) -> dict[str, Row]:
    rows = classifier.measure(Config(), sizes=sizes, dim=16, sampled=20, batch_size=4, rounds=2)
    check_rows(rows)
    return {row.name: row for row in rows}


@pytest.mark.slow
def test_each_size_is_compared_with_the_smallest_and_with_the_exact_classifier_and_is_saved():
    rows = measured(200, 400)
    assert rows["sampled, 200"].ratio.median == 1
    assert rows["sampled, 400"].ratio.to == "sampled, 200"
    assert rows["exact, 400"].ratio.to == "sampled, 400"
    for name in ("sampled, 200", "sampled, 400"):
        assert rows[f"{name}: rows and slots moved"].ratio.to == name
    # Rows and momentum there and back, and 4 + 4 logits a class there and back, of 4 bytes each:
    # of the drawn ones and the batch's, or of all.
    for name, classes in (("sampled, 200", 24), ("sampled, 400", 24), ("exact, 200", 200)):
        moved = classes * (4 * 16 + 4 * 4) * 4 / 2**20
        assert rows[f"{name}: must move"].median == pytest.approx(moved)
    # Rows and bias with their momenta in float32.
    size = 400 * 2 * (16 + 1) * 4 / 2**20
    assert size < rows["sampled, 400: checkpoint, on disk"].median < size + 0.01
    most = rows["sampled, 400: checkpoint, held at most"].ratio
    assert most.to == "sampled, 400: checkpoint, held before" and most.low >= 1
    assert rows["sampled, 400: checkpoint"].unit == "s"
    assert not [name for name in rows if name.startswith("exact") and "checkpoint" in name]


def test_what_is_moved_stays_as_it_is(monkeypatch: pytest.MonkeyPatch):
    built = []
    build = PartialFC.build

    def keep(partial_fc: PartialFC, optimizer: object) -> None:
        build(partial_fc, optimizer)
        built.extend([partial_fc.classifier.rows, *partial_fc.slots])

    monkeypatch.setattr(PartialFC, "build", keep)
    acts = classifier.classifier_acts(200, 20, 16, 4, 0)
    acts["step"]()
    before = [v.numpy() for v in built]
    acts["move"]()
    for variable, value in zip(built, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert np.isfinite(acts["step"]())


def test_what_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifier, "_free_bytes", lambda: 1000)
    assert not [name for name in measured(200) if name.startswith("exact")]
