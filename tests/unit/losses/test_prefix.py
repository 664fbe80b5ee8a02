"""The loss of embeddings that can be cut."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tf_dpce.losses import ContrastiveLoss, PrefixLoss, RankingLoss, contrastive_loss

IDS = np.int32([4, 4, 7, 9])


@pytest.fixture
def pair() -> np.ndarray:
    draws = np.random.default_rng(0).normal(size=(4, 2, 6)).astype(np.float32)
    return draws / np.linalg.norm(draws, axis=-1, keepdims=True)


def test_it_is_the_mean_of_the_loss_of_each_length(pair):
    def alone(length: int) -> np.ndarray:
        cut = pair[..., :length]
        cut = cut / np.linalg.norm(cut, axis=-1, keepdims=True)
        return np.asarray(contrastive_loss(IDS, cut[:, 0], cut[:, 1], 0.1))

    found = PrefixLoss(ContrastiveLoss(0.1), [3, 2]).call(IDS, pair)
    np.testing.assert_allclose(found, (alone(6) + alone(3) + alone(2)) / 3, rtol=1e-4)


def test_without_prefixes_it_is_the_loss_itself(pair):
    loss = RankingLoss(0.3)
    np.testing.assert_array_equal(PrefixLoss(loss, []).call(IDS, pair), loss.call(IDS, pair))


def test_a_prefix_of_zeros_has_a_finite_gradient():
    import tensorflow as tf

    pair = tf.Variable(np.float32([[[0, 0, 1], [0, 0, 1]], [[0, 1, 0], [1, 0, 0]]]))
    with tf.GradientTape() as tape:
        loss = PrefixLoss(ContrastiveLoss(1.0), [2])(np.int32([1, 2]), pair)
    assert np.isfinite(tape.gradient(loss, pair).numpy()).all()


def test_its_config_builds_it_again(pair):
    loss = PrefixLoss(ContrastiveLoss(0.1), [3])
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    np.testing.assert_array_equal(again(IDS, pair), loss(IDS, pair))
