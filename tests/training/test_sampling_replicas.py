"""The sampled classifier on two replicas: the same as on one, for the same global batch."""

from __future__ import annotations

# Replicas must be there before TensorFlow is first used, so this is a program of its own.
PROGRAM = """
import sys

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from tests.training.test_sampling import batches, sampled
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
    return len(copies[0]), [v.numpy() for v in [*state, *network.weights]]


for kind in (LayerwiseSGD, LayerwiseAdamW):
    (one, expected), (two, found) = (trained(kind, d) for d in (["CPU:0"], ["CPU:0", "CPU:1"]))
    assert (one, two) == (1, 2)
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-6)
"""


def test_two_replicas_train_the_rows_of_one(run_program):
    run_program(PROGRAM)
