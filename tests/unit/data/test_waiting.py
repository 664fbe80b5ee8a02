"""The seconds that training waits for its input."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import tensorflow as tf

from tf_dpce.data.input_timer import Waiting


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


def steps(waiting: Waiting, batches: tf.data.Dataset, seconds: float = 0.0) -> int:
    """Takes a step of so many seconds with each batch."""
    taken, iterator = 0, iter(batches)
    waiting.begin()
    while True:
        waiting.wanted()
        if next(iterator, None) is None:
            return taken
        time.sleep(seconds)
        waiting.taken()
        taken += 1


def test_a_slow_input_is_waited_for():
    waiting = Waiting()
    assert steps(waiting, waiting.within(tf.data.Dataset.range(8).map(slow))) == 8
    # Eight batches of 50 ms each.
    assert 0.4 <= waiting.seconds < 1.2


def test_a_slow_input_is_waited_for_where_it_keeps_all_threads_busy():
    # As many calls at a time as there are threads, on one resource.
    one_at_a_time, threads = threading.Lock(), len(os.sched_getaffinity(0))

    def sleep(value: np.ndarray) -> np.ndarray:
        with one_at_a_time:
            time.sleep(0.1)
        return value

    def read(batch: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(sleep, [batch], tf.int64), [])

    waiting = Waiting()
    reading = tf.data.Dataset.range(20).map(read, num_parallel_calls=threads).prefetch(4)
    began = time.monotonic()
    assert steps(waiting, waiting.within(reading)) == 20
    # Nothing else is done in all that time, but for making the iterator.
    assert 0.9 * 2.0 < waiting.seconds <= time.monotonic() - began


def test_an_input_that_is_ahead_is_not():
    waiting = Waiting()
    ahead = tf.data.Dataset.range(8).map(slow).prefetch(8)
    # The first batch takes 50 ms; then a step takes twice as long as a batch.
    assert steps(waiting, waiting.within(ahead), seconds=0.1) == 8
    assert 0.05 <= waiting.seconds < 0.15


def test_an_iteration_that_was_given_up_does_not_count():
    waiting = Waiting()
    batches = waiting.within(tf.data.Dataset.range(8).map(slow))
    given_up = iter(batches)
    next(given_up), next(given_up)
    assert steps(waiting, batches) == 8
    assert 0.4 <= waiting.seconds < 1.2
