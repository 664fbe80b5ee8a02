"""The benchmark of the classifier, small."""

from __future__ import annotations

import pytest

from benchmarks import classifier
from tests.unit.benchmarks.rows import check_rows
from tf_dpce.config import Config

SMALL = {"sizes": (200, 400), "dim": 16, "sampled": 20, "batch_size": 4, "rounds": 2}


@pytest.mark.process
def test_each_size_is_compared_with_the_smallest_and_with_the_exact_classifier():
    rows = classifier.measure(Config(), **{**SMALL, "sizes": (200,)})
    check_rows(rows)
    assert [(row.name, row.ratio and row.ratio.to) for row in rows] == [
        ("sampled, 200", "sampled, 200"),
        ("sampled, 200: memory", None),
        ("exact, 200", "sampled, 200"),
        ("exact, 200: memory", None),
    ]


def test_what_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifier, "_free_bytes", lambda: 1000)
    timed = []
    monkeypatch.setattr(classifier, "_timed", lambda cases, rounds: timed.append(cases) or [])
    classifier.measure(Config(), **SMALL)
    assert [list(cases) for cases in timed] == [["sampled, 200", "sampled, 400"]]
