"""Encoders of a model in training, applied to every batch of a data set."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tests.errors import raises
from tests.unit.export.tiny import SIZE, WORDS, tiny_model
from tf_dpce.evaluation.embed import Encoders


def test_data_of_another_length_than_their_manifest_says_are_refused(model):
    rows = {"text": tf.ones([5, 6], tf.int32), "instance": tf.range(5, dtype=tf.int64)}
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(2)
    encoders = Encoders(model)
    for count in (0, 4, 6):
        with raises("data.counts"):
            encoders.texts(dataset, count)
    assert len(encoders.texts(dataset).vectors) == 5


def test_embeddings_keep_their_order_and_instances(model):
    pixels = np.random.default_rng(0).uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32)
    instances = np.array([7, 3, 3, 0, 2])
    dataset = tf.data.Dataset.from_tensor_slices({"image": pixels, "instance": instances}).batch(2)
    embedded = Encoders(model).images(dataset, 5)
    np.testing.assert_array_equal(embedded.instances, instances)
    expected = model.image_encoder(pixels, training=False)
    np.testing.assert_allclose(embedded.vectors, expected, atol=1e-6)


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
        found += [encoders.images(dataset, 5).vectors, encoders.texts(dataset, 5).vectors]
        assert traced == []
        anew = Encoders(model)
        for one, two in zip(found[-2:], (anew.images(dataset), anew.texts(dataset)), strict=True):
            np.testing.assert_array_equal(one, two.vectors)
        traced.clear()
        for variable in model.trainable_variables:
            variable.assign(variable.numpy()[::-1])
    assert not np.allclose(found[0], found[2]) and not np.allclose(found[1], found[3])
