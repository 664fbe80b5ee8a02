"""In-batch softmax over cosines, in both directions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.losses.vectors import random_batch, through_its_configuration, value
from tf_dpce.losses import ContrastiveLoss, contrastive_loss


def plain(ids: np.ndarray, image: np.ndarray, text: np.ndarray, temperature: float) -> list[float]:
    """Two softmaxes a row, over itself and the rows of other instances."""
    losses = []
    for k in range(len(ids)):
        rivals = [j for j in range(len(ids)) if j == k or ids[j] != ids[k]]
        right = image[k] @ text[k] / temperature
        to_texts = np.log(sum(np.exp(image[k] @ text[j] / temperature) for j in rivals))
        to_images = np.log(sum(np.exp(image[j] @ text[k] / temperature) for j in rivals))
        losses.append((to_texts + to_images) / 2 - right)
    return losses


def test_hand_derived_values():
    # Cosines [[1, 0], [0, 1]] at temperature 1: ln(e + 1) - 1 = ln(1 + 1/e) both ways. At
    # temperature 1/2 the gap is 2.
    eye = np.eye(2, dtype=np.float32)
    for temperature, gap in ((1.0, 1), (0.5, 2)):
        expected = np.log1p(np.exp([-gap] * 2))
        assert value(contrastive_loss([0, 1], eye, eye, temperature)) == pytest.approx(expected)


def test_both_directions_count_alike():
    # Images both east; texts east and north. Cosines, images by rows: [[1, 0], [1, 0]].
    # Row 0: ln(e + 1) - 1 over texts, ln 2 over images; row 1: ln(e + 1) - 0 and ln 2.
    image, text = np.array([[1, 0], [1, 0]], np.float32), np.eye(2, dtype=np.float32)
    forth, back = np.log(np.e + 1), np.log(2)
    expected = [(forth - 1 + back) / 2, (forth + back) / 2]
    assert value(contrastive_loss([0, 1], image, text, 1.0)) == pytest.approx(expected)


def test_perfect_collapsed_and_worst_batch():
    ends, same = np.array([[1, 0], [-1, 0]], np.float32), np.ones((3, 1), np.float32)
    # Cosines of 1 and -1 at temperature 0.05: a gap of 40.
    assert value(contrastive_loss([0, 1], ends, ends)) == pytest.approx([0, 0], abs=1e-5)
    assert value(contrastive_loss([0, 1], ends, ends[::-1])) == pytest.approx([40, 40])
    even = np.log([3] * 3)
    assert value(contrastive_loss([0, 1, 2], same, same)) == pytest.approx(even, abs=1e-5)


def test_rows_of_one_instance_are_no_negatives_of_one_another():
    # Three equal rows; rows 0 and 1 are one image, so each has two rivals, and row 2 three.
    same = np.ones((3, 1), np.float32)
    expected = np.log([2, 2, 3])
    assert value(contrastive_loss([6, 6, 1], same, same)) == pytest.approx(expected, abs=1e-5)
    # All of one instance: there is nobody to be mistaken for.
    assert value(contrastive_loss([6, 6, 6], same, -same)) == pytest.approx(np.zeros(3), abs=1e-5)


def test_equals_the_plain_reference():
    for seed in range(8):
        draw = np.random.default_rng(seed)
        ids, image, text = random_batch(draw)
        temperature = float(draw.uniform(0.05, 1))
        losses = value(contrastive_loss(ids, image, text, temperature))
        assert losses.shape == ids.shape
        assert losses == pytest.approx(plain(ids, image, text, temperature), rel=1e-4, abs=1e-4)


def test_the_class_returns_rows_reduces_to_their_mean_and_is_made_again():
    ids, image, text = random_batch(np.random.default_rng(0))
    pairs = np.stack([image, text], axis=1)
    expected = plain(ids, image, text, 0.2)
    assert value(ContrastiveLoss(0.2).call(ids, pairs)) == pytest.approx(expected, rel=1e-4)
    assert float(ContrastiveLoss(0.2)(ids, pairs)) == pytest.approx(np.mean(expected), rel=1e-4)
    again = through_its_configuration(ContrastiveLoss(0.07, reduction="sum"))
    assert (again.temperature, again.reduction) == (0.07, "sum")
