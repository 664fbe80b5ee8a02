"""How far the similarities of a batch are from a teacher's."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.losses.vectors import EAST, NORTH, random_units, through_its_configuration, value
from tf_dpce.losses import DistillationLoss, distillation_loss


def pairs(draw: np.random.Generator, rows: int, width: int) -> np.ndarray:
    return np.stack([random_units(draw, rows, width) for _ in range(2)], axis=1)


def plain(
    teacher: np.ndarray, student: np.ndarray, temperature: float, teacher_temperature: float
) -> list[float]:
    """For each row and both directions, the sum of p ln(p / q) over the rows of the batch."""
    losses = []
    for k in range(len(teacher)):
        loss = 0.0
        for own, other in ((0, 1), (1, 0)):
            p = [np.exp(teacher[k, own] @ row[other] / teacher_temperature) for row in teacher]
            q = [np.exp(student[k, own] @ row[other] / temperature) for row in student]
            p, q = np.float64(p) / np.sum(p), np.float64(q) / np.sum(q)
            loss += sum(p[j] * np.log(p[j] / q[j]) for j in range(len(p))) / 2
        losses.append(loss)
    return losses


def test_hand_derived_values():
    right = np.float32([[EAST, EAST], [NORTH, NORTH]])
    # Cosines [[1, 0], [0, 1]] at temperature 1 make p = e / (e + 1) and 1 - p. The student has the
    # captions exchanged: the divergence is p ln(p / (1 - p)) + (1 - p) ln((1 - p) / p) = 2 p - 1,
    # since ln(p / (1 - p)) = 1.
    wrong = np.float32([[EAST, NORTH], [NORTH, EAST]])
    p = np.e / (np.e + 1)
    assert value(distillation_loss(right, wrong, 1.0, 1.0)) == pytest.approx([2 * p - 1] * 2)
    # Images both east: an image has both captions at p and 1 - p, captions are even over images.
    # From image 0 that is the teacher's; from image 1 as above; back it is p and 1 - p against 1/2.
    images = np.float32([[EAST, EAST], [EAST, NORTH]])
    even = p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p))
    expected = [even / 2, (2 * p - 1 + even) / 2]
    assert value(distillation_loss(right, images, 1.0, 1.0)) == pytest.approx(expected, abs=1e-6)


def test_it_is_the_plain_reference_and_nothing_where_student_and_teacher_agree():
    for seed in range(8):
        draw = np.random.default_rng(seed)
        rows, (one, other) = int(draw.integers(1, 12)), draw.uniform(0.1, 1, 2)
        teacher, student = pairs(draw, rows, 7), pairs(draw, rows, 5)
        losses = value(distillation_loss(teacher, student, one, other))
        assert losses.shape == (rows,)
        assert losses == pytest.approx(plain(teacher, student, one, other), rel=1e-3, abs=1e-5)
        # Turned into a space of more dimensions, the embeddings have the same cosines.
        turn = np.linalg.qr(draw.normal(size=(9, 9)))[0][:7].astype(np.float32)
        found = value(distillation_loss(teacher, teacher @ turn, other, other))
        assert found == pytest.approx(np.zeros(rows), abs=1e-5)


def test_the_class_reduces_rows_to_their_mean_and_is_made_again():
    draw = np.random.default_rng(0)
    teacher, student = pairs(draw, 5, 7), pairs(draw, 5, 4)
    expected = plain(teacher, student, 0.2, 0.4)
    assert value(DistillationLoss(0.2, 0.4).call(teacher, student)) == pytest.approx(expected)
    assert float(DistillationLoss(0.2, 0.4)(teacher, student)) == pytest.approx(np.mean(expected))
    again = through_its_configuration(DistillationLoss(0.07, 0.02, reduction="sum"))
    assert (again.temperature, again.teacher_temperature) == (0.07, 0.02)
