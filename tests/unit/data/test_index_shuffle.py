"""The order of training and its draws: functions of (seed, epoch, step) and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tf_dpce.data.index_shuffle import IndexShuffle, pick


def steps(order: IndexShuffle, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices `[steps, B]` and draws `[steps, B, 14]`."""
    pairs = list(order.steps(start, stop).as_numpy_iterator())
    return np.stack([i for i, _ in pairs]), np.stack([d for _, d in pairs])


def epochs(order: IndexShuffle, count: int) -> np.ndarray:
    return steps(order, 0, count * order.steps_per_epoch)[0].reshape(count, -1)


@pytest.mark.parametrize(
    ("images", "batch"), [(48, 8), (7, 7), (5, 1), (1, 1), (1000, 50), (50, 8), (7, 4), (101, 100)]
)
def test_an_epoch_meets_each_image_once_and_what_is_left_over_waits(images: int, batch: int):
    order = IndexShuffle(3, images, batch)
    assert order.steps_per_epoch == images // batch
    for epoch in epochs(order, 3):
        assert len(epoch) == images // batch * batch
        assert len(set(epoch)) == len(epoch) and 0 <= epoch.min() and epoch.max() < images


def test_every_place_is_as_likely_for_every_image():
    orders = epochs(IndexShuffle(0, 20, 20), 2000)
    counts = np.stack([np.bincount(place, minlength=20) for place in orders.T])
    # 2,000 / 20 = 100 each, variance 95: chi square of 19 * 19 = 361, standard deviation 27.
    assert ((counts - 100) ** 2).sum() / 100 < 361 + 4 * 27


def test_epochs_and_seeds_differ():
    first, second = epochs(IndexShuffle(0, 200, 10), 2)
    other = epochs(IndexShuffle(1, 200, 10), 1)[0]
    # Two random orders of 200 agree in one place on average; more than 10 has odds below 1e-7.
    assert (first == second).sum() <= 10 and (first == other).sum() <= 10
    assert (first == np.arange(200)).sum() <= 10


@pytest.mark.parametrize("start", [0, 6, 7, 8])
def test_starting_at_a_step_equals_skipping_to_it(start: int):
    # 7 steps an epoch: within the first, at the border, within the second.
    order = IndexShuffle(5, 30, 4)
    whole, resumed = steps(order, 0, 14), steps(order, start, 14)
    for all_steps, later in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(later, all_steps[start:])


def test_draws_are_uniform_and_all_different():
    _, draws = steps(IndexShuffle(0, 100, 20), 0, 25)
    assert draws.shape == (25, 20, 14) and draws.dtype == np.float32
    assert 0 <= draws.min() and draws.max() < 1
    # Means of 500 uniform draws in each column: 4 standard errors are 0.052.
    assert np.abs(draws.reshape(-1, 14).mean(axis=0) - 0.5).max() < 0.052
    # No step and no row repeats another's.
    assert len(np.unique(draws.reshape(-1, 14), axis=0)) == 500


def test_the_first_draws_are_those_of_runs_before_there_were_more():
    _, draws = steps(IndexShuffle(7, 40, 4), 3, 4)
    seed = tf.random.experimental.stateless_fold_in([7, 1], tf.constant(3, tf.int64))
    np.testing.assert_array_equal(draws[0, :, :8], tf.random.stateless_uniform([4, 8], seed))


def test_draws_of_a_step_do_not_depend_on_the_epochs_length():
    # A draw is the step's: the order of images may change with their number, draws may not.
    np.testing.assert_array_equal(
        steps(IndexShuffle(0, 40, 4), 3, 9)[1], steps(IndexShuffle(0, 80, 4), 3, 9)[1]
    )


def test_pick_chooses_each_number_equally_often():
    draws = (np.arange(60) + 0.5) / 60
    for count in (1, 2, 5, 6):
        chosen = pick(tf.constant(draws, tf.float32), tf.fill([60], count)).numpy()
        assert np.bincount(chosen).tolist() == [60 // count] * count


def test_pick_never_reaches_the_count():
    counts = tf.constant([1, 2, 5, 1000, 2**24])
    below_one = np.nextafter(np.float32(1), np.float32(0))
    for draw in (below_one, np.float32(1)):
        chosen = pick(tf.fill([5], draw), counts)
        assert chosen.dtype == tf.int32
        assert (chosen.numpy() <= counts.numpy() - 1).all()
    assert pick(tf.zeros(5), counts).numpy().tolist() == [0] * 5


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_are_its_rows_in_order(parts: int):
    whole = steps(IndexShuffle(5, 30, 8), 2, 7)
    shares = [steps(IndexShuffle(5, 30, 8, part, parts), 2, 7) for part in range(parts)]
    assert {share[0].shape for share in shares} == {(5, 8 // parts)}
    for place, expected in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([s[place] for s in shares], 1), expected)
