"""The text towers against which the convolutional one is measured."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tf_dpce.models import bag_of_words_tower, recurrent_tower

VOCABULARY = 50
IDS = np.array([[1, 2, 3, 4, 0, 0, 0, 0], [4, 2, 3, 1, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def recurrent() -> keras.Model:
    keras.utils.set_random_seed(0)
    tower = recurrent_tower(VOCABULARY, 8, 6, (16, 12), 5)
    tower.get_layer("text_embedding").bias.assign(np.random.default_rng(0).normal(size=6))
    return tower


def test_the_order_of_words_matters_to_one_and_not_to_the_other(recurrent: keras.Model):
    bag = bag_of_words_tower(VOCABULARY, 8, 6, (16,), 5)
    for tower, differs in ((recurrent, True), (bag, False)):
        one, other = tower.predict(IDS, verbose=0)
        assert one.shape == (5,)
        assert np.abs(one - other).max() > 1e-3 if differs else np.allclose(one, other, atol=1e-6)
