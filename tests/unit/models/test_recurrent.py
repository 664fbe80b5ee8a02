"""The recurrent text tower, against which the convolutional one is measured."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tf_dpce.models import recurrent_tower

VOCABULARY = 50


@pytest.fixture(scope="module")
def tower() -> keras.Model:
    keras.utils.set_random_seed(0)
    tower = recurrent_tower(VOCABULARY, 8, 6, (16,), 5)
    tower.get_layer("text_embedding").bias.assign(np.random.default_rng(0).normal(size=6))
    return tower


def test_parameters(tower: keras.Model):
    # Words 50 * 6 + 6; BatchNorm 2 * 6. A GRU has three gates, each with weights of its 6 inputs,
    # of its 16 states, and two biases: 3 * (6 * 16 + 16 * 16 + 2 * 16). Dense 16 * 5, BatchNorm
    # 2 * 5.
    trainable = sum(int(np.prod(v.shape)) for v in tower.trainable_variables)
    assert trainable == 306 + 12 + 1_152 + 80 + 10
    assert tower.output_shape == (None, 5)


def test_the_default_is_as_wide_as_the_convolutional_tower():
    assert recurrent_tower(VOCABULARY).output_shape == (None, 2048)


def test_gated_units_stand_on_one_another():
    tower = recurrent_tower(VOCABULARY, 8, 6, (16, 12), 5)
    shapes = [tower.get_layer(f"text_gru{number}").output.shape for number in (0, 1)]
    assert shapes == [(None, 8, 16), (None, 8, 12)]


def test_the_order_of_words_matters(tower: keras.Model):
    ids = np.array([[1, 2, 3, 4, 0, 0, 0, 0], [4, 2, 3, 1, 0, 0, 0, 0]])
    one, other = tower.predict(ids, verbose=0)
    assert np.abs(one - other).max() > 1e-3


def test_empty_places_are_read_like_words(tower: keras.Model):
    """As in the convolutional tower there is no mask: states change behind the last word."""
    states = keras.Model(tower.input, tower.get_layer("text_gru0").output)
    read = states.predict(np.array([[1, 2, 0, 0, 0, 0, 0, 0]]), verbose=0)[0]
    assert (np.abs(np.diff(read, axis=0)).max(axis=1) > 1e-4).all()


@pytest.mark.parametrize("layer", ["text_word_dropout", "text_feature_dropout"])
def test_dropout_acts_in_training_alone(layer: str):
    rates = {"word_dropout": 0.5, "dropout": 0.5}
    tower = recurrent_tower(VOCABULARY, 8, 4, (64,), 3, **rates)
    dropped = keras.Model(tower.input, tower.get_layer(layer).output)
    ids = np.arange(64).reshape(8, 8) % VOCABULARY + 1
    assert not np.array(dropped(ids, training=True)).all()
    assert np.array(dropped(ids, training=False)).all()


# Keras's own saving converts variables in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_saved_and_loaded_it_gives_the_same_features(tower: keras.Model, tmp_path):
    tower.save(tmp_path / "tower.keras")
    again = keras.saving.load_model(tmp_path / "tower.keras")
    ids = np.random.default_rng(0).integers(0, VOCABULARY + 1, (4, 8))
    np.testing.assert_array_equal(again.predict(ids, verbose=0), tower.predict(ids, verbose=0))
