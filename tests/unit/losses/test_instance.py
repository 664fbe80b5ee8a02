"""The instance loss: a softmax over all instances, nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.losses.vectors import through_its_configuration, value
from tf_dpce.losses import InstanceLoss, instance_loss


def plain(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[id], row by row, in float64."""
    losses = []
    for instance, row in zip(ids, logits.astype(np.float64), strict=True):
        shifted = row - row.max()
        losses.append(np.log(np.exp(shifted).sum()) - shifted[instance])
    return np.array(losses)


def test_hand_derived_values():
    # Even odds over C classes cost ln C. Odds of 3 to 1 (logits ln 3 and 0) for the right one
    # cost -ln 3/4, and against it -ln 1/4.
    assert value(instance_loss([0], np.zeros((1, 7), np.float32))) == pytest.approx(np.log(7))
    logits = np.array([[np.log(3), 0], [np.log(3), 0]], np.float32)
    expected = [-np.log(3 / 4), -np.log(1 / 4)]
    assert value(instance_loss([0, 1], logits)) == pytest.approx(expected)


def test_a_perfect_batch_costs_nothing_and_the_worst_costs_the_gap():
    logits = 100 * np.eye(4, dtype=np.float32)
    assert value(instance_loss([0, 1, 2, 3], logits)) == pytest.approx(np.zeros(4), abs=1e-6)
    # The right class stands 100 below the one that takes all: -log e^-100.
    assert value(instance_loss([1, 2, 3, 0], logits)) == pytest.approx(np.full(4, 100.0))


def test_equals_the_plain_reference():
    for seed in range(5):
        draw = np.random.default_rng(seed)
        batch, classes = draw.integers(1, 9), draw.integers(2, 30)
        ids = draw.integers(0, classes, batch)
        logits = draw.normal(0, 20, (batch, classes)).astype(np.float32)
        losses = value(instance_loss(ids, logits))
        assert losses.shape == (batch,)
        assert losses == pytest.approx(plain(ids, logits), rel=1e-5, abs=1e-5)
        # `fit` may hand labels over as a column.
        assert value(instance_loss(ids[:, None], logits)) == pytest.approx(losses)


def test_the_class_returns_rows_and_reduces_to_their_mean():
    draw = np.random.default_rng(0)
    ids, logits = draw.integers(0, 9, 6), draw.normal(size=(6, 9)).astype(np.float32)
    # A scalar from `call` would not be divided by the number of replicas.
    rows = value(InstanceLoss().call(ids, logits))
    assert rows.shape == (6,)
    assert float(InstanceLoss()(ids, logits)) == pytest.approx(plain(ids, logits).mean(), rel=1e-5)
    assert value(InstanceLoss(reduction="none")(ids, logits)) == pytest.approx(rows)

    again = through_its_configuration(InstanceLoss(reduction="sum", name="faces"))
    assert (again.reduction, again.name) == ("sum", "faces")
