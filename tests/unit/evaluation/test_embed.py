"""Encoders of a model in training, applied to every batch of a data set."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tests.unit.export.tiny import SIZE, WORDS, tiny_model
from tf_dpce.evaluation.embed import Encoders


def test_encoders_are_traced_once_and_answer_with_the_weights_of_the_moment(monkeypatch):
    model, draw = tiny_model(), np.random.default_rng(0)
    pixels = draw.uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32)
    ids, instances = draw.integers(0, len(WORDS), (5, 6), np.int32), np.arange(5)
    rows = {"image": pixels, "text": ids, "instance": instances}
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(2)
    traced, trace = [], keras.Model.__call__

    def count(self: keras.Model, *given, **options):
        traced.append(self.name)
        return trace(self, *given, **options)

    encoders = Encoders(model)
    monkeypatch.setattr(keras.Model, "__call__", count)
    found = []
    for _ in range(2):
        found += [encoders.images(dataset).vectors, encoders.texts(dataset).vectors]
        assert traced == []
        anew = Encoders(model)
        for one, two in zip(found[-2:], (anew.images(dataset), anew.texts(dataset)), strict=True):
            np.testing.assert_array_equal(one, two.vectors)
        traced.clear()
        for variable in model.trainable_variables:
            variable.assign(variable.numpy()[::-1])
    assert not np.allclose(found[0], found[2]) and not np.allclose(found[1], found[3])
