"""A function in a Session, and what its profile tells."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from benchmarks.served import Served, saved

WIDE = 600


def test_products_and_the_rest_are_told_apart():
    matrix = tf.Variable(tf.ones([WIDE, WIDE]))
    signature = [tf.TensorSpec([None, WIDE])]
    multiply = tf.function(lambda rows: rows @ matrix @ matrix, input_signature=signature)
    add = tf.function(lambda rows: tf.sin(rows) + matrix[0], input_signature=signature)
    rows = np.ones((WIDE, WIDE), np.float32)

    with saved(multiply) as folder:
        served = Served(folder)
    # The folder is gone: nothing is read from it later. 600 ones times 600 ones, twice.
    np.testing.assert_allclose(served(rows[:2]), WIDE**2)
    products, others = served.profile(rows)
    assert products > 10 * others > 0

    with saved(add) as folder:
        products, others = Served(folder).profile(rows)
    assert products == 0 < others
