"""The sampled classifier on several replicas: the same as on one, for the same global batch."""

from __future__ import annotations

import pytest

# Replicas must be there before TensorFlow is first used, so this is a program of its own.
PROGRAM = """
import os

import numpy as np
import tensorflow as tf

DEVICES = [f"CPU:{place}" for place in range(int(os.environ["REPLICAS"]))]
cpu = tf.config.list_physical_devices("CPU")[0]
configuration = [tf.config.LogicalDeviceConfiguration() for _ in DEVICES]
tf.config.set_logical_device_configuration(cpu, configuration)

from tests.unit.training.test_sampling import batches, sampled
from tf_dpce.training.optimizers import LayerwiseAdamW, LayerwiseSGD


def trained(kind, devices):
    with tf.distribute.MirroredStrategy(devices).scope():
        network, classifier = sampled(kind, negatives=7)
    network.fit(batches(), shuffle=False, verbose=0)
    network.settle()
    state = [classifier.rows, classifier.bias, *network.store.variables]
    copies = [v.value.values for v in state]
    for first, *others in copies:
        for other in others:
            np.testing.assert_array_equal(first.numpy(), other.numpy())
    return len(copies[0]), {v.path: v.numpy() for v in [*network.weights, *state]}


for kind in (LayerwiseSGD, LayerwiseAdamW):
    (one, expected), (several, found) = (trained(kind, d) for d in (["CPU:0"], DEVICES))
    assert (one, several) == (1, len(DEVICES))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        # No place of these steps is free.
        assert value.any() or path.endswith("/absence"), path
        atol = 1e-5 * np.abs(value).max()
        np.testing.assert_allclose(found[path], value, rtol=0, atol=atol, err_msg=path)
"""


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_replicas_train_the_rows_of_one(run_program, replicas: int):
    run_program(PROGRAM, REPLICAS=str(replicas))
