"""Turned copies of a batch."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_dpce.data.turned_copies import opposite_ids, with_turned_copies


def test_a_copy_is_upside_down_says_the_opposite_and_is_an_instance_of_its_own():
    words = ("a", "left", "of", "right", "above")
    # The vocabulary has no "below": "above" stays.
    opposites = opposite_ids(words, [("left", "right"), ("above", "below")])
    assert opposites.tolist() == [0, 1, 4, 3, 2, 5]
    images = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
    batch = {
        "image": tf.constant(images),
        # "a left of a right", and "a above a", which says nothing that turns.
        "text": tf.constant([[1, 2, 3, 1, 4], [1, 5, 1, 0, 0]]),
        "instance": tf.constant([0, 7], tf.int64),
    }
    found = with_turned_copies(batch, opposites)
    assert found["text"].numpy().tolist()[2:] == [[1, 4, 3, 1, 2], [1, 5, 1, 0, 0]]
    assert found["instance"].numpy().tolist() == [0, 7, -1, 7]
    for row in range(2):
        np.testing.assert_array_equal(found["image"][row], images[row])
        np.testing.assert_array_equal(found["image"][2 + row], np.rot90(images[row], 2))
