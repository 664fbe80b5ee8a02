"""Running averages of the weights: what they are, when they stand in, and that they are kept."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.unit.training.kills import arrays, newest
from tf_dpce.config import StageConfig
from tf_dpce.training.checkpoint import best_path
from tf_dpce.training.ema import averaged
from tf_dpce.training.optimizers import LayerwiseAdamW, LayerwiseSGD

KEPT = 0.75


def trained(kind: type, seed: int) -> tuple[keras.optimizers.Optimizer, keras.Variable, np.ndarray]:
    """An optimizer after five steps, its variable, and the average computed beside it."""
    draw = np.random.default_rng(seed)
    variable = keras.Variable(draw.normal(size=(3, 2)), dtype="float32", name="w")
    optimizer = kind(0.1, multipliers={}, decay=0.0, use_ema=True, ema_momentum=KEPT)
    optimizer.build([variable])
    average = None
    for _ in range(5):
        optimizer.apply([keras.ops.convert_to_tensor(draw.normal(size=(3, 2)), "float32")])
        # The first step's weights are the first average: nothing drags it towards zero.
        now = variable.numpy()
        average = now if average is None else KEPT * average + (1 - KEPT) * now
    return optimizer, variable, average


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [LayerwiseSGD, LayerwiseAdamW])
def test_the_average_stands_in_and_the_weights_come_back(kind: type, seed: int):
    optimizer, variable, average = trained(kind, seed)
    before = variable.numpy()
    with averaged(optimizer):
        np.testing.assert_allclose(variable.numpy(), average, rtol=1e-6, atol=1e-7)
        assert not np.array_equal(variable.numpy(), before)
    np.testing.assert_array_equal(variable.numpy(), before)


def test_the_weights_come_back_after_an_error():
    optimizer, variable, _ = trained(LayerwiseSGD, 0)
    before = variable.numpy()
    with pytest.raises(KeyError), averaged(optimizer):
        raise KeyError("validation")
    np.testing.assert_array_equal(variable.numpy(), before)


def test_without_averages_nothing_changes():
    optimizer = LayerwiseSGD(0.1, multipliers={}, decay=0.0)
    variable = keras.Variable(np.ones((2, 2)), dtype="float32", name="w")
    optimizer.build([variable])
    with averaged(optimizer):
        np.testing.assert_array_equal(variable.numpy(), np.ones((2, 2)))


def test_the_end_of_fit_leaves_the_weights_alone():
    optimizer, variable, _ = trained(LayerwiseAdamW, 0)
    before = variable.numpy()
    optimizer.finalize_variable_values([variable])
    np.testing.assert_array_equal(variable.numpy(), before)


def test_a_run_keeps_the_averages_as_its_best_and_goes_on_with_the_weights(finished: Path):
    # The tiny run averages in its first stage and not in its second.
    best, last = arrays(best_path(finished, 1)), arrays(newest(finished, 1))
    weight = next(name for name in best if name.endswith("text_fc/kernel"))
    average = next(name for name in last if "text_fc_kernel_average" in name)
    assert not np.array_equal(last[weight], last[average])
    # Only an epoch that is both best and last could hold the very numbers of `last`.
    assert not np.array_equal(best[weight], last[weight])
    assert StageConfig().ema_momentum == 0
    second = arrays(newest(finished, 2))
    assert not any("average" in name for name in second)
