"""The seconds that training waits for its input."""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from tf_dpce.data.waiting import Waiting


def slow(batch: tf.Tensor) -> tf.Tensor:
    def sleep(value: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return value

    return tf.ensure_shape(tf.numpy_function(sleep, [batch], tf.int64), [])


def test_batches_are_the_same():
    batches = tf.data.Dataset.range(5)
    assert list(Waiting().within(batches).as_numpy_iterator()) == [0, 1, 2, 3, 4]
    pairs = tf.data.Dataset.zip(batches, batches)
    assert list(Waiting().within(pairs).as_numpy_iterator()) == [(n, n) for n in range(5)]
    rows = batches.map(lambda n: {"image": n})
    assert list(Waiting().within(rows).as_numpy_iterator()) == [{"image": n} for n in range(5)]


def test_a_slow_input_is_waited_for():
    waiting = Waiting()
    assert len(list(waiting.within(tf.data.Dataset.range(8).map(slow)))) == 8
    # Eight batches of 50 ms each.
    assert 0.4 <= waiting.seconds < 1.2


def test_an_input_that_is_ahead_is_not():
    waiting = Waiting()
    ahead = tf.data.Dataset.range(8).map(slow).prefetch(8)
    batches = iter(waiting.within(ahead))
    next(batches)
    time.sleep(0.8)
    first = waiting.seconds
    assert len(list(batches)) == 7
    assert waiting.seconds - first < 0.1
