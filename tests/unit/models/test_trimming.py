"""Trimming: the same answers from fewer places."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.unit.models.test_folding import stirred
from tf_dpce.models import bag_of_words_tower, recurrent_tower, text_tower
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.trimming import needed_places, trimming

WORDS = 30


def sentences(lengths: list[int], places: int, seed: int, before: int = 0) -> np.ndarray:
    """Sentences of these lengths, with empty places before and behind them."""
    ids = np.random.default_rng(seed).integers(1, WORDS + 1, (len(lengths), places))
    at = np.arange(places)
    first, last = np.full((len(lengths), 1), before), before + np.array(lengths)[:, None]
    return np.where((at >= first) & (at < last), ids, 0).astype(np.int32)


def any_length(encode: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    """A function of ids in a graph that does not know how many places there are."""
    return tf.function(encode, input_signature=[tf.TensorSpec([None, None], tf.int32)])


def random_tower(blocks: tuple[int, ...], places: int, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    widths = tuple(8 + 4 * group for group in range(len(blocks)))
    tower = stirred(text_tower(WORDS, places, 6, blocks, 5, widths=widths), seed)
    # Without a bias an empty place would be zeros, like the padding that the first place sees.
    tower.get_layer("text_embedding").bias.assign(np.linspace(-1, 1, 6))
    return tower


def test_places_that_a_tower_needs():
    # Two convolutions of width 2: behind n words two places still see one of them, and one more
    # stands for all empty ones. An empty sentence has the first place, which sees padding.
    tower = text_tower(WORDS, 24, 6, (2,), 5, widths=(8,))
    assert needed_places(tower) == (*range(3, 25), 24, 24, 24)
    # Groups of one block at strides 1 and 2: of 4 words, 5 places of the first map differ; of the
    # second, places 0 to 2, which see up to 2 * 2 = 4, and place 3 = ceil((5 + 1) / 2) is like all
    # that follow it. Place 3 is the 3 * 2 + 1 = 7th of the input.
    tower = text_tower(WORDS, 12, 6, (1, 1), 5, widths=(8, 8))
    assert needed_places(tower)[4] == 7


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("blocks", [(1,), (2,), (1, 1), (1, 2, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("before", [0, 3])
def test_a_trimmed_tower_answers_as_a_whole_one(blocks: tuple[int, ...], seed: int, before: int):
    places = 26
    tower = random_tower(blocks, places, seed)
    trim = trimming(tower)
    encode = any_length(lambda ids: tower(trim(ids)))
    for lengths in ([0], [1], [4, 9, 2], [0, 7], [places - before]):
        ids = sentences(lengths, places, seed, before)
        np.testing.assert_allclose(encode(ids), tower(ids), rtol=1e-5, atol=1e-6)
    # Twelve places more than words are enough for all these towers.
    assert trim(sentences([4, 2], places, seed, before)).shape[1] <= before + 4 + 12


@pytest.mark.parametrize(("blocks", "stride"), [((2,), 1), ((1, 1), 2), ((1, 1, 2), 4)])
def test_the_last_place_needed_is_the_first_that_stands_for_the_rest(blocks, stride: int):
    tower = random_tower(blocks, 64, 0)
    maps = keras.Model(tower.input, tower.get_layer("text_pool").input)(sentences([4], 64, 0))[0]
    alike = [bool(np.allclose(place, maps[-1], atol=1e-6)) for place in maps]
    first = alike.index(True)
    assert all(alike[first:])
    assert needed_places(tower)[4] == first * stride + 1


@pytest.mark.parametrize("build", [bag_of_words_tower, recurrent_tower])
def test_other_towers_get_all_their_places(build):
    tower = build(WORDS, 12, 6, (8,), 5)
    ids = sentences([3], 12, 0)
    assert trimming(tower)(ids) is ids


def test_one_trace_serves_batches_of_any_length_and_of_none():
    tower = folded(random_tower((2,), 24, 0))
    traced = []

    @tf.function(input_signature=[tf.TensorSpec([None, 24], tf.int32)])
    def encode(ids: tf.Tensor) -> tf.Tensor:
        traced.append(ids)
        return tower(trimming(tower)(ids))

    for lengths in ([], [5], [24, 1]):
        ids = sentences(lengths, 24, 0) if lengths else np.zeros((0, 24), np.int32)
        assert encode(ids).shape == (len(lengths), 5)
    assert len(traced) == 1
