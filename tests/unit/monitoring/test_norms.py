"""Norms of gradients and weights by part of the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.export.tiny import CONFIG
from tf_dpce.models.build import build_model
from tf_dpce.monitoring.norms import GradientNorms, learning_rates, trained_parts, weight_norms
from tf_dpce.training.optimizers import LayerwiseSGD


def test_a_gradient_is_measured_as_it_is_applied():
    table, matrix = (
        keras.Variable(np.ones((3, 2), "float32"), name=n) for n in ("table", "matrix")
    )
    frozen = keras.Variable(np.ones(2, "float32"), name="frozen")
    optimizer = LayerwiseSGD(0.1, multipliers={}, decay=0.5)
    optimizer.build([table, matrix, frozen])
    optimizer.gradient_norms = GradientNorms({"text": [table], "image": [matrix, frozen]}, 12)

    @tf.function
    def step() -> None:
        # Rows of word vectors that occur twice in a batch; their sum is what moves them.
        rows = tf.IndexedSlices(tf.constant([[1.0, 0.0], [2.0, 0.0]]), [1, 1], tf.constant([3, 2]))
        optimizer.apply([rows, tf.fill([3, 2], 2.0), tf.fill([2], 1.0)], [table, matrix, frozen])

    measured = {}
    for number in range(1, 13):
        step()
        if optimizer.gradient_norms.is_measured(number):
            measured[number] = optimizer.gradient_norms.values()
    # Of 12 steps the tenth and the last: sqrt(3**2), and sqrt(6 * 2**2 + 2 * 1**2).
    expected = {"text": 3.0, "image": pytest.approx(26**0.5)}
    assert measured == {10: expected, 12: expected}
    # Iterations, the rate and three momenta: what is measured is no part of a checkpoint.
    assert len(optimizer.variables) == 5


def test_parts_are_those_of_the_configuration():
    model = build_model(CONFIG, vocabulary_size=10, num_instances=4)
    model.image_backbone.trainable = False
    parts = trained_parts(model)
    assert list(parts) == ["image_head", "text_tower", "instance_classifier"]
    trained = [id(variable) for variables in parts.values() for variable in variables]
    assert sorted(trained) == sorted(id(variable) for variable in model.trainable_variables)
    kernel = model.classifier.kernel
    squares = float(np.sum(np.square(kernel.numpy())) + np.sum(np.square(model.classifier.bias)))
    assert weight_norms(parts)["instance_classifier"] == pytest.approx(squares**0.5, rel=1e-5)
    rates = learning_rates(0.1, {kernel.path: 2.0}, parts)
    assert rates == {
        **{"image_head": 0.1, "text_tower": 0.1},
        **{"instance_classifier x1": 0.1, "instance_classifier x2": 0.2},
    }
