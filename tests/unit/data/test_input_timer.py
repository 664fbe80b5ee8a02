"""The seconds that training waits for its input."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import tensorflow as tf

from tf_dpce.data.input_timer import InputTimer


def slow(batch: tf.Tensor) -> tf.Tensor:
    def sleep(value: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return value

    return tf.ensure_shape(tf.numpy_function(sleep, [batch], tf.int64), [])


def test_batches_are_the_same():
    batches = tf.data.Dataset.range(5)
    pairs = tf.data.Dataset.zip(batches, batches)
    assert list(InputTimer().timed(pairs).as_numpy_iterator()) == [(n, n) for n in range(5)]
    rows = batches.map(lambda n: {"image": n})
    assert list(InputTimer().timed(rows).as_numpy_iterator()) == [{"image": n} for n in range(5)]


def steps(timer: InputTimer, batches: tf.data.Dataset, seconds: float = 0.0) -> int:
    """Takes a step of so many seconds with each batch."""
    taken, iterator = 0, iter(batches)
    timer.reset()
    while True:
        timer.begin_step()
        if next(iterator, None) is None:
            return taken
        time.sleep(seconds)
        timer.end_step()
        taken += 1


def test_a_slow_input_is_waited_for_where_it_keeps_all_threads_busy():
    # As many calls at a time as there are threads, on one resource.
    one_at_a_time, threads = threading.Lock(), len(os.sched_getaffinity(0))

    def sleep(value: np.ndarray) -> np.ndarray:
        with one_at_a_time:
            time.sleep(0.1)
        return value

    def read(batch: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(sleep, [batch], tf.int64), [])

    timer = InputTimer()
    reading = tf.data.Dataset.range(20).map(read, num_parallel_calls=threads).prefetch(4)
    began = time.monotonic()
    assert steps(timer, timer.timed(reading)) == 20
    # Nothing else is done in all that time, but for making the iterator.
    assert 0.9 * 2.0 < timer.seconds <= time.monotonic() - began


def test_an_input_that_is_ahead_is_not():
    timer = InputTimer()
    ahead = tf.data.Dataset.range(8).map(slow).prefetch(8)
    # The first batch takes 50 ms; then a step takes twice as long as a batch.
    assert steps(timer, timer.timed(ahead), seconds=0.1) == 8
    assert 0.05 <= timer.seconds < 0.15


def test_an_iteration_that_was_given_up_does_not_count():
    timer = InputTimer()
    batches = timer.timed(tf.data.Dataset.range(8).map(slow))
    given_up = iter(batches)
    next(given_up), next(given_up)
    assert steps(timer, batches) == 8
    assert 0.4 <= timer.seconds < 1.2
