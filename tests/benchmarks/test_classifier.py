"""The benchmark of the classifier, small."""

from __future__ import annotations

import pytest

from tf_dpce.benchmarks import classifier


def test_both_classifiers_are_timed_in_turn():
    costs = classifier.rows(200, dim=16, sampled=20, batch=4, rounds=2)
    assert [(cost.classifier, cost.instances) for cost in costs] == [
        ("sampled", 200),
        ("exact", 200),
    ]
    assert all(0 < cost.low <= cost.median <= cost.high for cost in costs)
    # Rows and momentum there and back, and 4 + 4 logits a class there and back, of 4 bytes each.
    assert costs[0].moved_mib == pytest.approx(24 * (4 * 16 + 4 * 4) * 4 / 2**20)
    assert costs[1].moved_mib == pytest.approx(200 * (4 * 16 + 4 * 4) * 4 / 2**20)


def test_what_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifier, "_free_bytes", lambda: 1000)
    (cost,) = classifier.rows(200, dim=16, sampled=20, batch=4, rounds=1)
    assert cost.classifier == "sampled"
