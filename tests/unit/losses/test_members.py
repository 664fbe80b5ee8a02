"""Members learn by themselves: the mean of a pair loss that sees one alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.losses.test_contrastive import random_units, value
from tf_dpce.losses import ContrastiveLoss, MemberLoss, RankingLoss, contrastive_loss

IDS = np.array([0, 1, 2, 0])


def side_by_side(members: list[np.ndarray]) -> np.ndarray:
    """Pairs `[B, 2, M d]` of members `[B, 2, d]`, as `UnitLength` leaves them."""
    return np.concatenate(members, axis=-1) / np.sqrt(len(members))


def drawn(members: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    images_and_texts = lambda: [random_units(draw, len(IDS)) for _ in range(2)]  # noqa: E731
    return [np.stack(images_and_texts(), axis=1) for _ in range(members)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("members", [1, 2, 3])
def test_it_is_the_mean_over_members(members: int, seed: int):
    pairs = drawn(members, seed)
    expected = np.mean([value(contrastive_loss(IDS, p[:, 0], p[:, 1])) for p in pairs], axis=0)
    loss = MemberLoss(ContrastiveLoss(), members)
    assert value(loss.call(IDS, side_by_side(pairs))) == pytest.approx(expected, rel=1e-4)


def test_a_perfect_and_a_collapsed_batch():
    # As `test_contrastive` derives them for one: a gap of 40 is no loss; 4 rows that are all alike
    # leave an even bet among the 3 that are not twins of a row, 4 for the rows without one.
    ids, members = np.arange(2), [np.array([[[1, 0]] * 2, [[-1, 0]] * 2], np.float32)] * 3
    loss = MemberLoss(ContrastiveLoss(), 3)
    assert value(loss.call(ids, side_by_side(members))) == pytest.approx([0, 0], abs=1e-5)
    alike = [np.ones((4, 2, 1), np.float32)] * 3
    expected = np.log([3, 4, 4, 3])
    assert value(loss.call(IDS, side_by_side(alike))) == pytest.approx(expected, rel=1e-5)


def test_roles_of_given_negatives_hold_for_each_member():
    # Two anchors, each with the negative behind it.
    y_true = np.stack([np.arange(4), np.arange(4)], axis=1)
    pairs = drawn(2)
    loss = RankingLoss(negatives="paired")
    expected = np.mean([value(loss.call(y_true, pair)) for pair in pairs], axis=0)
    found = value(MemberLoss(loss, 2).call(y_true, side_by_side(pairs)))
    assert found == pytest.approx(expected, rel=1e-5) and (found[1::2] == 0).all()


def test_what_a_member_learns_does_not_depend_on_the_others():
    first, second, third = drawn(3)
    loss = MemberLoss(ContrastiveLoss(), 2)

    def gradient(other: np.ndarray) -> np.ndarray:
        pairs = tf.Variable(side_by_side([first, other]))
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(loss.call(IDS, pairs))
        return tape.gradient(total, pairs).numpy()[..., : first.shape[-1]]

    np.testing.assert_allclose(gradient(second), gradient(third), atol=1e-5)
    assert np.abs(gradient(second)).max() > 0.1


def test_it_is_saved_with_the_loss_that_it_repeats():
    loss = MemberLoss(ContrastiveLoss(0.1), 2)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert (again.members, again.loss.temperature) == (2, 0.1)
    y_pred = side_by_side(drawn(2))
    assert value(again(IDS, y_pred)) == pytest.approx(value(loss(IDS, y_pred)))
