"""The ranking loss: hinges on cosine gaps, with paired negatives or those of the batch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.losses.vectors import (
    EAST,
    NORTH,
    WEST,
    random_batch,
    random_units,
    through_its_configuration,
    unit,
    value,
)
from tf_dpce.losses import RankingLoss, batch_ranking_loss, ranking_loss


def hinge(margin: float, right: float, wrong: float) -> float:
    return max(0.0, margin - (right - wrong))


def plain_in_batch(
    ids: np.ndarray, image: np.ndarray, text: np.ndarray, margin: float
) -> list[float]:
    """Each row against the hardest row of another instance, by two loops."""
    losses = []
    for k in range(len(ids)):
        others = [j for j in range(len(ids)) if ids[j] != ids[k]]
        right, loss = image[k] @ text[k], 0.0
        if others:
            loss += hinge(margin, right, max(image[k] @ text[j] for j in others))
            loss += hinge(margin, right, max(image[j] @ text[k] for j in others))
        losses.append(loss)
    return losses


# --- the pure function, with paired negatives -----------------------------------------------------


def test_hand_derived_values():
    # x.y = 1; x.y_negative = 0.6, a gap of 0.4; y.x_negative = 0, a gap of 1.
    # Margin 1: (1 - 0.4) + (1 - 1) = 0.6. Margin 0.5: 0.1 + 0.
    vectors = unit(EAST), unit(EAST), unit(NORTH), unit([0.6, 0.8])
    assert value(ranking_loss(*vectors)) == pytest.approx([0.6])
    assert value(ranking_loss(*vectors, margin=0.5)) == pytest.approx([0.1])


def test_each_direction_meets_its_own_negative():
    # As above with the two negatives' parts changed: x.y_negative = 0, y.x_negative = 0.6.
    # Here x and y differ, so that x.x_negative or y.y_negative in their place would show:
    # x = east, y = north: x.y = 0; y.x_negative = 0.8; x.y_negative = -1.
    # Margin 1: (1 - (0 + 1)) + (1 - (0 - 0.8)) = 0 + 1.8.
    loss = ranking_loss(unit(EAST), unit(NORTH), unit([0.6, 0.8]), unit(WEST))
    assert value(loss) == pytest.approx([1.8])


def test_best_and_worst_case():
    best = ranking_loss(unit(EAST), unit(EAST), unit(WEST), unit(WEST))
    # Right pair opposite (-1), wrong pairs equal (1): gaps of -2, twice margin + 2.
    worst = ranking_loss(unit(EAST), unit(WEST), unit(WEST), unit(EAST))
    assert (value(best), value(worst)) == (pytest.approx([0.0]), pytest.approx([6.0]))


# --- in-batch negatives ---------------------------------------------------------------------------


def test_a_perfect_a_collapsed_and_the_worst_batch():
    ids, image, same = np.array([7, 9]), unit(EAST, WEST), unit(EAST, EAST)
    assert value(batch_ranking_loss(ids, image, image)) == pytest.approx([0.0, 0.0])
    # As the worst case above, in both rows.
    assert value(batch_ranking_loss(ids, image, image[::-1])) == pytest.approx([6.0, 6.0])
    assert value(batch_ranking_loss(ids, same, same, margin=0.3)) == pytest.approx([0.6, 0.6])


def test_rows_of_one_instance_are_no_negatives_of_one_another():
    # Rows 0 and 1 are one image with two captions. Against row 2 alone: x.y = 1 and a wrong
    # cosine of 0, so a gap of 1 and no loss, though rows 0 and 1 are equal.
    image = unit(EAST, EAST, NORTH)
    assert value(batch_ranking_loss(np.array([4, 4, 5]), image, image)) == pytest.approx(
        np.zeros(3)
    )
    # Of three instances they would be: rows 0 and 1 then have a gap of 0 in both directions.
    loss = batch_ranking_loss(np.array([4, 6, 5]), image, image)
    assert value(loss) == pytest.approx([2.0, 2.0, 0.0])


def test_a_row_without_a_negative_costs_nothing():
    image, text = unit(EAST, NORTH), unit(WEST, WEST)
    assert value(batch_ranking_loss(np.array([3, 3]), image, text)) == pytest.approx([0.0, 0.0])
    assert value(batch_ranking_loss(np.array([3]), image[:1], text[:1])) == pytest.approx([0.0])


def test_in_batch_equals_the_plain_reference():
    for seed in range(8):
        draw = np.random.default_rng(seed)
        ids, image, text = random_batch(draw)
        margin = float(draw.uniform(0, 1.5))
        losses = value(batch_ranking_loss(ids, image, text, margin))
        assert losses.shape == ids.shape
        assert losses == pytest.approx(plain_in_batch(ids, image, text, margin), abs=1e-5)


# --- roles: paired negatives as a field of the batch ----------------------------------------------


def paired_batch(draw: np.random.Generator, anchors: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets (instance, role) and pairs of a batch of anchors with their negatives."""
    roles = np.arange(2 * anchors)
    ids = draw.permutation(50)[: 2 * anchors]
    pairs = np.stack([random_units(draw, len(roles)), random_units(draw, len(roles))], axis=1)
    return np.stack([ids, roles], axis=1), pairs


def test_an_anchor_meets_its_negative_which_costs_nothing_itself():
    # Row 0 is the anchor of the first hand-derived case (0.6), row 1 its negative.
    pairs = np.stack([unit(EAST, NORTH, EAST), unit(EAST, [0.6, 0.8], WEST)], axis=1)
    for targets, expected in (
        ([[3, 0], [8, 1]], [0.6, 0.0]),
        # A negative of the anchor's own instance costs nothing.
        ([[3, 0], [3, 1]], [0.0, 0.0]),
        # Nor does an anchor whose negative fell off the end of the batch.
        ([[3, 0], [8, 1], [5, 2]], [0.6, 0.0, 0.0]),
    ):
        rows = RankingLoss(negatives="paired").call(np.array(targets), pairs[: len(targets)])
        assert value(rows) == pytest.approx(expected)


def test_the_mean_is_the_authors_sum_over_anchors_by_the_full_batch():
    anchors, margin = 16, 1.0
    targets, pairs = paired_batch(np.random.default_rng(0), anchors)
    total = 0.0
    for k in range(anchors):
        (x, y), (x_negative, y_negative) = pairs[2 * k], pairs[2 * k + 1]
        total += hinge(margin, x @ y, x @ y_negative) + hinge(margin, x @ y, y @ x_negative)
    # Section 4 of the recipe: sums over 16 anchors, divided by the full batch of 32.
    loss = float(RankingLoss(margin, "paired")(targets, pairs))
    assert loss == pytest.approx(total / (2 * anchors), rel=1e-5)


def test_roles_survive_a_permutation_and_slices_that_keep_both_rows_of_a_pair_together():
    draw, loss = np.random.default_rng(0), RankingLoss(negatives="paired")
    targets, pairs = paired_batch(draw, 6)
    rows = value(loss.call(targets, pairs))
    assert np.count_nonzero(rows) == 6
    order = draw.permutation(len(rows))
    moved = value(loss.call(targets[order], pairs[order]))
    assert moved == pytest.approx(rows[order], abs=1e-6)
    halves = [value(loss.call(targets[part], pairs[part])) for part in (slice(6), slice(6, 12))]
    assert np.concatenate(halves) == pytest.approx(rows, abs=1e-6)


# --- the class ------------------------------------------------------------------------------------


def test_the_class_returns_rows_reduces_to_their_mean_and_is_made_again():
    ids, image, text = random_batch(np.random.default_rng(0))
    pairs = np.stack([image, text], axis=1)
    expected = plain_in_batch(ids, image, text, 0.2)
    assert value(RankingLoss(0.2).call(ids, pairs)) == pytest.approx(expected, abs=1e-5)
    assert float(RankingLoss(0.2)(ids, pairs)) == pytest.approx(np.mean(expected), abs=1e-5)
    again = through_its_configuration(RankingLoss(0.25, "paired", reduction="sum", name="rank"))
    assert (again.margin, again.negatives, again.reduction) == (0.25, "paired", "sum")


def test_other_negatives_are_refused():
    with pytest.raises(ValueError):
        RankingLoss(negatives="hardest")
