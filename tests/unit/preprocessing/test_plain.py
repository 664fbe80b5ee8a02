"""What training draws in NumPy is what the graph draws from the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tf_dpce.data.index_shuffle import pick
from tf_dpce.preprocessing.image import crop_window
from tf_dpce.preprocessing.plain import crop_windows, grouped, picked, shifted
from tf_dpce.preprocessing.tokenizer import position_shift

ROWS = 1000


@pytest.mark.parametrize("squash", [False, True])
def test_crops_are_those_of_the_graph(squash: bool):
    draw = np.random.default_rng(0)
    shapes = draw.integers(1, 700, (ROWS, 2)).astype(np.int32)
    draws = draw.random((ROWS, 4), np.float32)
    windows = crop_windows(shapes, draws, squash)
    one = lambda row: crop_window(row[0][0], row[0][1], row[1], squash)  # noqa: E731
    rows = (tf.constant(shapes), tf.constant(draws))
    graph = tf.function(lambda: tf.map_fn(one, rows, fn_output_signature=tf.int32))()
    # Where a side lies between two pixels, the last bit of a float decides.
    assert np.abs(windows - graph.numpy()).max() <= 1
    assert (windows == graph.numpy()).all(axis=1).mean() > 0.99
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (windows[:, :2] + windows[:, 2:] <= shapes).all()


def test_shifts_are_those_of_the_graph():
    draw = np.random.default_rng(1)
    ids = np.zeros((ROWS, 7), np.int32)
    for row in ids:
        length = draw.integers(0, 8)
        row[:length] = draw.integers(1, 50, length)
    draws = draw.random(ROWS, np.float32)
    np.testing.assert_array_equal(shifted(ids, draws), position_shift(ids, draws))


def test_picks_are_those_of_the_graph():
    draw = np.random.default_rng(2)
    counts, draws = draw.integers(1, 9, ROWS), draw.random(ROWS, np.float32)
    draws[:2] = 0.0, np.nextafter(np.float32(1), np.float32(0))
    np.testing.assert_array_equal(picked(draws, counts), pick(draws, counts))


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_grouped_by_their_owners(seed: int):
    owners = np.random.default_rng(seed).permutation([*range(7), *range(3), 2])
    order, first = grouped(owners)
    for owner in range(7):
        assert list(order[first[owner] : first[owner + 1]]) == list(np.flatnonzero(owners == owner))
    assert first[7] == len(owners)
