"""Two rows of one instance, each on a replica of its own: no negatives of one another."""

from __future__ import annotations

import pytest

# Replicas must be there before TensorFlow is first used, so this is a program of its own.
PROGRAM = """
import os

import keras
import numpy as np
import tensorflow as tf

DEVICES = [f"CPU:{place}" for place in range(int(os.environ["REPLICAS"]))]
cpu = tf.config.list_physical_devices("CPU")[0]
configuration = [tf.config.LogicalDeviceConfiguration() for _ in DEVICES]
tf.config.set_logical_device_configuration(cpu, configuration)

from tests.unit.training.test_sampling import CLASSES, towers
from tf_dpce.losses import ContrastiveLoss, RankingLoss
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.replicas import gather_rows

draw = np.random.default_rng(4)
inputs = {
    "image": draw.normal(size=(4, 5)).astype(np.float32),
    "text": draw.integers(0, 30, (4, 3)).astype(np.int32),
}
# The third row is near the first, so that it would be the hardest negative.
inputs["image"][2] = inputs["image"][0] + 0.5 * inputs["image"][2]


def trained(loss, ids, devices):
    with tf.distribute.MirroredStrategy(devices).scope():
        network = DualPath(*towers(), CLASSES, dropout=0.0)
        network.classifier.trainable = False
        network.compile(keras.optimizers.SGD(0.1), {"pair": loss()}, jit_compile=False)
    # Of two replicas the first takes the first two rows, of four each takes one.
    batches = tf.data.Dataset.from_tensors((inputs, {"pair": np.array(ids)}))
    network.fit(batches.repeat(3), shuffle=False, verbose=0)
    return np.concatenate([w.numpy().ravel() for w in network.trainable_weights])


ONE = ["CPU:0"]
for loss in (
    lambda: RankingLoss(gather=gather_rows),
    lambda: ContrastiveLoss(gather=gather_rows),
):
    twins = trained(loss, [3, 5, 3, 7], ONE)
    np.testing.assert_allclose(trained(loss, [3, 5, 3, 7], DEVICES), twins, rtol=0, atol=1e-5)
    strangers = trained(loss, [3, 5, 4, 7], ONE)
    assert np.abs(twins - strangers).max() > 1e-2, "the mask is of consequence"
"""


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_replicas_leave_out_what_one_does(run_program, replicas: int):
    run_program(PROGRAM, REPLICAS=str(replicas))
