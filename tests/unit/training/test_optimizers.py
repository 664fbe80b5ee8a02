"""The optimizers and the averages of weights against plain NumPy, several steps long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.errors import raises
from tests.unit.export.tiny import CONFIG
from tests.unit.training.kills import arrays, newest
from tf_dpce.models.build import build_model
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.checkpoint import best_path
from tf_dpce.training.optimizers import (
    LayerwiseAdamW,
    LayerwiseSGD,
    StageSchedule,
    averaged,
    lr_multipliers,
)

SHAPES = {"matrix": (3, 4), "vector": (5,), "slow": (2, 2), "frozen": (3, 3)}
SCALES = {"matrix": 1.0, "vector": 1.0, "slow": 0.01, "frozen": 0.0}
MULTIPLIERS = {"slow": 0.01, "frozen": 0.0}
STEPS, DECAY = 6, 0.1
RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]


def start(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.normal(size=shape) for name, shape in SHAPES.items()}


def gradients(seed: int) -> list[dict[str, np.ndarray]]:
    return [start(1000 + STEPS * seed + step) for step in range(STEPS)]


def apply(optimizer: keras.optimizers.Optimizer, seed: int) -> dict[str, np.ndarray]:
    variables = {n: keras.Variable(v, dtype="float32", name=n) for n, v in start(seed).items()}
    assert [v.path for v in variables.values()] == list(SHAPES)
    optimizer.build(list(variables.values()))
    for step in gradients(seed):
        values = [keras.ops.convert_to_tensor(g, "float32") for g in step.values()]
        optimizer.apply(values, list(variables.values()))
    return {name: variable.numpy() for name, variable in variables.items()}


def plain_sgd(seed: int) -> dict[str, np.ndarray]:
    """Section 5 of the recipe, the rate inside the velocity: v = 0.9v - lr g; w += 0.9v - lr g."""
    weights = start(seed)
    velocity = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for rate, step in zip(RATES, gradients(seed), strict=True):
        for name, w in weights.items():
            move = rate * SCALES[name] * (step[name] + DECAY * w)
            velocity[name] = 0.9 * velocity[name] - move
            weights[name] = w + 0.9 * velocity[name] - move
    return weights


def plain_adamw(seed: int) -> dict[str, np.ndarray]:
    """Decay beside the step, on matrices alone; both scaled by the multiplier."""
    weights = start(seed)
    first = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    second = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for t, (rate, step) in enumerate(zip(RATES, gradients(seed), strict=True), start=1):
        for name, w in weights.items():
            g, scaled = step[name], rate * SCALES[name]
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            corrected = scaled * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            decay = scaled * DECAY * w if w.ndim > 1 else 0
            weights[name] = w - decay - corrected * first[name] / (np.sqrt(second[name]) + 1e-7)
    return weights


def model() -> DualPath:
    return build_model(CONFIG, vocabulary_size=9, num_instances=4)


@pytest.mark.parametrize(
    ("kind", "plain"), [(LayerwiseSGD, plain_sgd), (LayerwiseAdamW, plain_adamw)]
)
def test_several_steps_equal_the_plain_reference(kind: type, plain: Callable):
    schedule = StageSchedule(0.1, STEPS, decay_steps=(3,))
    for seed in range(3):
        found = apply(kind(schedule, MULTIPLIERS, DECAY), seed)
        for name, expected in plain(seed).items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found["frozen"], start(seed)["frozen"], rtol=1e-6)


def test_the_last_pattern_that_matches_a_variable_gives_its_rate():
    found = lr_multipliers(
        {
            "*/gamma": 2.0,
            "image_backbone/*": 0.2,
            "image_backbone/*/gamma": 0.01,
            "image_backbone/image_conv1/kernel": 0.001,
            "text_tower/text_embedding/*": 0.1,
            "instance_classifier/*": 0.3,
            "instance_classifier/bias": 0.4,
        },
        model(),
    )
    expected = {
        "image_conv1/kernel": 0.001,
        "image_conv2/kernel": 0.2,
        "image_conv4_bn/gamma": 0.01,
        "image_conv4_bn/beta": 0.2,
        "text_embedding/embeddings": 0.1,
        "text_embedding/bias": 0.1,
        "instance_classifier/kernel": 0.3,
        "instance_classifier/bias": 0.4,
    }
    assert {path: found[path] for path in expected} == expected
    # Elsewhere, the scales of BatchNorm alone.
    rest = {path: factor for path, factor in found.items() if "conv" not in path}
    rest = {path: factor for path, factor in rest.items() if path not in expected}
    assert rest and all(path.endswith("/gamma") and rest[path] == 2.0 for path in rest)


def test_a_pattern_that_matches_nothing_is_refused():
    with raises("config.lr_multipliers") as caught:
        lr_multipliers({"*": 0.5, "image_bakbone/*": 0.1}, model())
    assert "image_bakbone/*" in str(caught.value)


# --- averages of the weights ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LayerwiseSGD, LayerwiseAdamW])
def test_the_average_stands_in_and_the_weights_come_back(kind: type):
    draw, momentum, average = np.random.default_rng(0), 0.75, None
    variable = keras.Variable(draw.normal(size=(3, 2)), dtype="float32", name="w")
    optimizer = kind(0.1, multipliers={}, decay=0.0, use_ema=True, ema_momentum=momentum)
    optimizer.build([variable])
    for _ in range(5):
        optimizer.apply([keras.ops.convert_to_tensor(draw.normal(size=(3, 2)), "float32")])
        # The first step's weights are the first average: nothing drags it towards zero.
        before = variable.numpy()
        average = before if average is None else momentum * average + (1 - momentum) * before
    # Also after an error, and `fit` leaves the weights alone at its end.
    with pytest.raises(KeyError), averaged(optimizer):
        np.testing.assert_allclose(variable.numpy(), average, rtol=1e-6, atol=1e-7)
        assert not np.array_equal(variable.numpy(), before)
        raise KeyError("validation")
    optimizer.finalize_variable_values([variable])
    np.testing.assert_array_equal(variable.numpy(), before)

    plain = kind(0.1, multipliers={}, decay=0.0)
    plain.build([variable])
    with averaged(plain):
        np.testing.assert_array_equal(variable.numpy(), before)


def test_a_run_keeps_the_averages_as_its_best_and_goes_on_with_the_weights(finished: Path):
    # The tiny run averages in its first stage and not in its second.
    best, last = arrays(best_path(finished, 1)), arrays(newest(finished, 1))
    weight = next(name for name in best if name.endswith("text_fc/kernel"))
    average = next(name for name in last if "text_fc_kernel_average" in name)
    assert not np.array_equal(last[weight], last[average])
    # Only an epoch that is both best and last could hold the very numbers of `last`.
    assert not np.array_equal(best[weight], last[weight])
    assert not any("average" in name for name in arrays(newest(finished, 2)))


def test_rows_of_an_embedding_move_as_in_adam_of_keras():
    import tensorflow as tf

    ends = []
    for optimizer in (LayerwiseAdamW(0.01, {}, decay=0.0), keras.optimizers.Adam(0.01)):
        table = keras.Variable(np.arange(20.0).reshape(5, 4), dtype="float32", name="table")
        optimizer.build([table])
        for step in range(3):
            rows = np.random.default_rng(step).normal(size=(3, 4)).astype(np.float32)
            # A batch has the second row twice.
            optimizer.apply([tf.IndexedSlices(rows, [1, 3, 1], [5, 4])], [table])
        ends.append(table.numpy())
    np.testing.assert_array_equal(*ends)
