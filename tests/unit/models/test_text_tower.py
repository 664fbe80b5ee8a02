"""The text tower beside its layers, which tests/unit/test_golden.py compares with the recipe."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tf_dpce.models import small_text_tower, text_tower
from tf_dpce.models.image_tower import image_head

VOCABULARY = 50


@pytest.fixture(scope="module")
def tower() -> keras.Model:
    return text_tower(VOCABULARY)


def test_no_convolution_has_a_bias_and_every_batch_norm_the_authors_constants(tower: keras.Model):
    # 30,245,376 weights of convolutions and 56,408 of BatchNorm; beside them the words.
    trainable = sum(int(np.prod(v.shape)) for v in tower.trainable_variables)
    assert trainable == 30_245_376 + 56_408 + VOCABULARY * 300 + 300
    for layer in tower.layers:
        assert not getattr(layer, "use_bias", False)
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.epsilon, layer.momentum) == (1e-3, 0.95)


def test_words_start_in_the_range_of_fan_in_and_the_bias_at_zero(tower: keras.Model):
    kernel = tower.get_layer("text_4_1_b").kernel.numpy()
    # Uniform in +-sqrt(3 / fan_in), fan_in = 2 positions * 2048 channels.
    limit = np.sqrt(3 / 4096)
    assert np.abs(kernel).max() == pytest.approx(limit, rel=1e-3)
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=1e-2)
    assert not tower.get_layer("text_embedding").bias.numpy().any()


def test_the_small_tower_is_plain_convolutions_of_six_positions():
    tower = small_text_tower(VOCABULARY, 9, 4, (5, 7), 3)
    ids = np.array([[3, 1, 4, 1, 5, 9, 2, 6, 0]])
    inside = [tower.get_layer(name).output for name in ("text_embedding_bn", "text_pool")]
    x, pooled = (np.array(y)[0] for y in keras.Model(tower.input, inside)(ids))
    for number in (1, 2):
        kernel = tower.get_layer(f"text_conv{number}").kernel.numpy()
        before = np.pad(x, ((5, 0), (0, 0)))
        x = np.array([np.tensordot(before[t : t + 6], kernel, 2) for t in range(9)])
        # A new BatchNorm divides by sqrt(1 + 0.001) alone.
        x = np.maximum(x / np.sqrt(1.001), 0)
    np.testing.assert_allclose(pooled, x.max(axis=0), rtol=1e-5, atol=1e-6)
    assert tower(ids).shape == (1, 3)


def test_word_dropout_hides_whole_words_in_training_alone():
    tower = text_tower(VOCABULARY, 64, 4, (1,), 3, widths=(4,), word_dropout=0.5)
    vectors = keras.Model(tower.input, tower.get_layer("text_word_dropout").output)
    ids = np.arange(64).reshape(1, 64) % VOCABULARY + 1
    hidden = np.array(vectors(ids, training=True))[0] == 0
    # A position is hidden whole or not at all; of 64 places half on average (4 sigma: 16 to 48).
    assert (hidden.all(axis=1) == hidden.any(axis=1)).all()
    assert 16 <= hidden.all(axis=1).sum() <= 48
    assert np.array(vectors(ids, training=False)).all()


def test_feature_dropout_acts_in_training_alone_and_doubles_the_rest():
    texts = text_tower(VOCABULARY, 8, 4, (1,), 3, widths=(4,), dropout=0.5)
    head = image_head(2_000, 3, 4, dropout=0.5)
    for side, tower, inputs in (("text", texts, 8), ("image", head, 2_000)):
        layer = tower.get_layer(f"{side}_feature_dropout")
        features = keras.Model(tower.input, [layer.input, layer.output])
        ones = np.ones((64, inputs), int)
        before, after = (np.array(x) for x in features(ones, training=True))
        stays = after != 0
        np.testing.assert_allclose(after[stays], 2 * before[stays], rtol=1e-6)
        assert 0.3 < stays[before != 0].mean() < 0.7
        before, after = features(ones, training=False)
        np.testing.assert_array_equal(before, after)
