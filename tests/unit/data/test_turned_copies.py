"""Turned copies of a batch."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_dpce.data.turned_copies import opposite_ids, with_turned_copies


def test_a_copy_is_upside_down_says_the_opposite_and_is_an_instance_of_its_own():
    words = ("a", "left", "of", "right", "above")
    # The vocabulary has no "below", and "above" would be false of a turned image: it is left out.
    opposites = opposite_ids(words, [("left", "right"), ("below", "above"), ("over", "under")])
    assert opposites.tolist() == [0, 1, 4, 3, 2, 0]
    images = np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2)
    batch = {
        "image": tf.constant(images),
        # "a left of a right", "a above a", and "a of a", which says nothing that turns.
        "text": tf.constant([[1, 2, 3, 1, 4], [1, 5, 1, 0, 0], [1, 3, 1, 0, 0]]),
        "instance": tf.constant([0, 7, 9], tf.int64),
    }
    found = with_turned_copies(batch, opposites)
    copies = [[1, 4, 3, 1, 2], [1, 0, 1, 0, 0], [1, 3, 1, 0, 0]]
    assert found["text"].numpy().tolist()[1::2] == copies
    np.testing.assert_array_equal(found["text"][::2], batch["text"])
    assert found["instance"].numpy().tolist() == [0, -1, 7, -8, 9, 9]
    for row in range(3):
        np.testing.assert_array_equal(found["image"][2 * row], images[row])
        np.testing.assert_array_equal(found["image"][2 * row + 1], np.rot90(images[row], 2))


def test_workers_that_share_a_batch_have_its_rows_in_the_order_of_one_process():
    # Dropout is a function of the row of the global batch.
    batch = {
        "image": tf.reshape(tf.range(16.0), [4, 2, 2, 1]),
        "text": tf.constant([[1], [2], [1], [2]]),
        "instance": tf.range(4, dtype=tf.int64),
    }
    halves = [{key: rows[2 * n : 2 * n + 2] for key, rows in batch.items()} for n in (0, 1)]
    opposites = opposite_ids(("left", "right"), [("left", "right")])
    whole, *parts = (with_turned_copies(rows, opposites) for rows in (batch, *halves))
    for key, rows in whole.items():
        np.testing.assert_array_equal(tf.concat([part[key] for part in parts], 0), rows)
