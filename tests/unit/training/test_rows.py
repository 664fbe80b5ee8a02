"""Rows that steps pass over, against a plain NumPy sweep over all of them at every step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpce.models.dual_path import RowClassifier
from tf_dpce.training.idle import IdleSteps
from tf_dpce.training.optimizers import MAX_DECAY, LayerwiseAdamW, LayerwiseSGD
from tf_dpce.training.partial_fc import SampledClassifier
from tf_dpce.training.rows import RowStore
from tf_dpce.training.schedule import StageSchedule

CLASSES, WIDTH, PLACES, STEPS = 24, 3, 5, 120
# Near the most that is allowed, so that what is missed shows.
RATE, DECAY, SCALES = 0.1, 0.025, {"rows": 1.0, "bias": 0.5}
SCHEDULE = StageSchedule(RATE, STEPS, warmup_steps=20)
Arrays = dict[str, np.ndarray]


def touched() -> list[tuple[np.ndarray, Arrays]]:
    """Classes of each step and gradients of their rows and biases; class 0 is never taken."""
    draw, steps = np.random.default_rng(0), []
    for _ in range(STEPS):
        ids = 1 + draw.choice(CLASSES - 1, PLACES, replace=False)
        gradients = {"rows": draw.normal(size=(PLACES, WIDTH)), "bias": draw.normal(size=PLACES)}
        steps.append((ids, gradients))
    return steps


def start() -> Arrays:
    draw = np.random.default_rng(1)
    return {"rows": draw.normal(size=(CLASSES, WIDTH)), "bias": draw.normal(size=CLASSES)}


def store(kind: type) -> tuple[RowStore, RowClassifier, SampledClassifier, keras.Optimizer]:
    whole, placed = RowClassifier(CLASSES, True), SampledClassifier(PLACES, True)
    for classifier in (whole, placed):
        classifier.build((None, WIDTH))
    for name, value in start().items():
        getattr(whole, name).assign(value)
    scales = {getattr(placed, name).path: scale for name, scale in SCALES.items()}
    optimizer = kind(SCHEDULE, multipliers=scales, decay=DECAY)
    optimizer.build(placed.trainable_variables)
    return RowStore(whole, placed, optimizer, SCHEDULE.rates()), whole, placed, optimizer


def rowwise(kind: type, scale: float = 1.0, settle_at: tuple[int, ...] = ()) -> Arrays:
    rows, whole, placed, optimizer = store(kind)
    for step, (ids, gradients) in enumerate(touched()):
        if step in settle_at:
            rows.settle(step)
        rows.load(tf.constant(ids), tf.constant(step, tf.int64))
        values = [tf.constant(scale * gradients[name], tf.float32) for name in SCALES]
        optimizer.apply(values, [placed.rows, placed.bias])
        rows.put_back(tf.constant(ids), tf.constant(step, tf.int64))
    rows.settle(STEPS)
    slots = rows.variables[1:]
    found = {}
    for name in SCALES:
        found[name] = getattr(whole, name).numpy()
        count = len(optimizer.slots(placed.rows))
        found |= {f"{name}{place}": slots.pop(0).numpy() for place in range(count)}
    return found


def plain_sgd(w: np.ndarray, slots: list, g: np.ndarray, rate: float, t: int) -> np.ndarray:
    move = rate * (g + DECAY * w)
    slots[0] = 0.9 * slots[0] - move
    return w + 0.9 * slots[0] - move


def plain_adamw(w: np.ndarray, slots: list, g: np.ndarray, rate: float, t: int) -> np.ndarray:
    slots[0] = 0.9 * slots[0] + 0.1 * g
    slots[1] = 0.999 * slots[1] + 0.001 * g**2
    corrected = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    decay = rate * DECAY * w if w.ndim > 1 else 0
    return w - decay - corrected * slots[0] / (np.sqrt(slots[1]) + 1e-7)


def swept(plain, scale: float = 1.0) -> Arrays:
    """Every row at every step, with a gradient of 0 where a step does not take it."""
    found = {}
    for name, w in start().items():
        slots = [np.zeros_like(w), np.zeros_like(w)]
        for step, (ids, gradients) in enumerate(touched()):
            g = np.zeros_like(w)
            g[ids] = scale * gradients[name]
            rate = SCALES[name] * SCHEDULE.rates()[step]
            w = plain(w, slots, g, rate, step + 1)
        found |= {name: w, f"{name}0": slots[0], f"{name}1": slots[1]}
    return found


KINDS = [(LayerwiseSGD, plain_sgd), (LayerwiseAdamW, plain_adamw)]


@pytest.mark.parametrize(("kind", "plain"), KINDS)
@pytest.mark.parametrize("settle_at", [(), (40, 41)])
def test_rows_taken_at_random_are_those_of_a_sweep_at_every_step(kind, plain, settle_at):
    found, expected = rowwise(kind, settle_at=settle_at), swept(plain)
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    # Under AdamW a bias has no decay, and without a gradient no momentum to go on with.
    assert np.abs(found["rows"][0] / start()["rows"][0]).max() < 0.9


def test_where_epsilon_is_as_large_as_the_gradients_adam_goes_on_within_half_a_percent():
    # Roots of mean squares are near 1e-8 here, epsilon is 1e-7.
    found, expected = rowwise(LayerwiseAdamW, 1e-7), swept(plain_adamw, 1e-7)
    way = swept(plain_adamw, 0.0)
    for name in SCALES:
        moved = np.abs(expected[name] - way[name]).max()
        error = np.abs(found[name] - expected[name]).max()
        assert 1e-4 * moved < error < 5e-3 * moved, name


@pytest.mark.parametrize("decay", [1e-4, 0.02, MAX_DECAY["sgd"] / 0.1])
def test_a_product_of_steps_is_that_of_their_matrices(decay: float):
    rates, since, now = StageSchedule(0.1, 600, 30).rates(), [0, 0, 5, 400, 599, 600], 600
    optimizer = LayerwiseSGD(0.1, {}, decay)
    variable = keras.Variable(np.zeros((2, 2)), name="w")
    optimizer.build([variable])
    steps = optimizer.idle_steps(variable, rates)
    found = IdleSteps(steps)(tf.constant(since, tf.int64), tf.constant(now, tf.int64))
    for place, first in enumerate(since):
        product = np.eye(2)
        for step in steps[first:now]:
            product = step @ product
        entries = [entry[place] for entry in found]
        np.testing.assert_allclose(entries, product.ravel(), rtol=1e-6, atol=1e-9)


def test_a_row_that_is_loaded_and_not_missed_is_as_it_was():
    rows, whole, placed, _ = store(LayerwiseSGD)
    rows.load(tf.constant([7, 3]), tf.constant(0, tf.int64))
    np.testing.assert_array_equal(placed.rows[:2], whole.rows.numpy()[[7, 3]])
    # Three of five places are free.
    assert (placed.absence.numpy() < -1e8).tolist() == [False, False, True, True, True]
