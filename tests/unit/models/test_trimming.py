"""Trimming: the same features from fewer positions."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tests.unit.models.test_fuse_batch_norm import stirred
from tf_dpce.models import bag_of_words_tower, recurrent_tower, small_text_tower, text_tower
from tf_dpce.models.trimming import needed_positions, trimming

WORDS = 30


def captions(lengths: list[int], positions: int, seed: int, before: int = 0) -> np.ndarray:
    """Captions of these lengths, with empty positions before and behind them."""
    ids = np.random.default_rng(seed).integers(1, WORDS + 1, (len(lengths), positions))
    at = np.arange(positions)
    first, last = np.full((len(lengths), 1), before), before + np.array(lengths)[:, None]
    return np.where((at >= first) & (at < last), ids, 0).astype(np.int32)


def random_tower(blocks: tuple[int, ...] | None, positions: int, seed: int) -> keras.Model:
    """The small tower, or one of these blocks."""
    keras.utils.set_random_seed(seed)
    if blocks is None:
        tower = small_text_tower(WORDS, positions, 6, (8, 12), 5)
    else:
        widths = tuple(8 + 4 * group for group in range(len(blocks)))
        tower = text_tower(WORDS, positions, 6, blocks, 5, widths=widths)
    tower = stirred(tower, seed)
    # Without a bias an empty position would be zeros, like the padding that the first one sees.
    tower.get_layer("text_embedding").bias.assign(np.linspace(-1, 1, 6))
    return tower


def test_positions_that_a_tower_needs():
    # Two convolutions of width 2: behind n words two positions still see one of them, and one more
    # stands for all empty ones. An empty caption has the first position, which sees padding.
    tower = text_tower(WORDS, 24, 6, (2,), 5, widths=(8,))
    assert needed_positions(tower) == (*range(3, 25), 24, 24, 24)
    # Groups of one block at strides 1 and 2: of 4 words, 5 positions of the first map differ; of
    # the second, positions 0 to 2, which see up to 2 * 2 = 4, and position 3 = ceil((5 + 1) / 2)
    # is like all that follow it. Position 3 is the 3 * 2 + 1 = 7th of the input.
    tower = text_tower(WORDS, 12, 6, (1, 1), 5, widths=(8, 8))
    assert needed_positions(tower)[4] == 7
    # Behind 4 words 5 positions of a convolution of width 6 still see one of them, and behind those
    # 5 positions of the next; one more stands for all empty ones.
    tower = small_text_tower(WORDS, 24, 6, (8, 8), 5)
    assert needed_positions(tower)[4] == 4 + 5 + 5 + 1


def test_a_trimmed_tower_has_the_features_of_a_whole_one():
    positions = 26
    for seed, blocks in enumerate([(2,), (1, 2, 1), (1, 1, 1, 1), None]):
        tower = random_tower(blocks, positions, seed)
        trim = trimming(tower)
        # A graph that does not know how many positions there are.
        encode = tf.function(
            lambda ids, tower=tower, trim=trim: tower(trim(ids)),
            input_signature=[tf.TensorSpec([None, None], tf.int32)],
        )
        for before in (0, 3):
            for lengths in ([0], [1], [4, 9, 2], [0, 7], [positions - before]):
                ids = captions(lengths, positions, seed, before)
                np.testing.assert_allclose(encode(ids), tower(ids), rtol=1e-5, atol=1e-6)
            # One trace serves batches of any length, and one of no captions.
            assert encode(np.zeros((0, positions), np.int32)).shape == (0, 5)
            # Twelve positions more than words are enough for all these towers.
            trimmed = trim(captions([4, 2], positions, seed, before))
            assert trimmed.shape[1] <= before + 4 + 12


def test_other_towers_get_all_their_positions():
    for build in (bag_of_words_tower, recurrent_tower):
        ids = captions([3], 12, 0)
        assert trimming(build(WORDS, 12, 6, (8,), 5))(ids) is ids
