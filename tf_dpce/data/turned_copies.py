"""Turned copies: rows that differ from others of their batch in nothing but relations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf


def opposite_ids(words: Sequence[str], opposites: Iterable[tuple[str, str]]) -> np.ndarray:
    """Returns the id of the opposite of each word, int32 `[V + 1]`, or the word's own id.

    Args:
        words: the vocabulary; the id of a word is its position in it, counted from 1.
        opposites: pairs of words. A word whose opposite the vocabulary does not hold becomes an
            empty token position, because said of a turned image it would be false.

    Example:
        >>> opposite_ids(["left", "of", "right", "above"], [("left", "right"), ("above", "below")])
        array([0, 3, 2, 1, 0], dtype=int32)
    """
    ids = np.arange(len(words) + 1, dtype=np.int32)
    position = {word: number for number, word in enumerate(words, start=1)}
    for pair in opposites:
        for word, opposite in (pair, reversed(pair)):
            if word in position:
                ids[position[word]] = position.get(opposite, 0)
    return ids


def with_turned_copies(batch: dict[str, tf.Tensor], opposites: np.ndarray) -> dict[str, tf.Tensor]:
    """Returns a batch with each row's turned copy behind it, twice as many rows.

    A copy has the image turned by 180 degrees and the caption with the opposite of each word, so
    that what was left is right and what was above is below. It is a true pair itself, and the
    hardest negative of the row that it is made of. They stay together, so that workers that share
    a batch have its rows in the order in which one process would have them.

    Args:
        batch: `image` `[R, S, S, 3]`, `text` int32 `[R, T]`, `instance` int64 `[R]`.
        opposites: what `opposite_ids` returns.

    Returns:
        The same keys, `[2R, ...]`. A copy whose caption changed is an instance of its own, with a
        negative number; the others stay of their instance.
    """
    text = tf.gather(opposites, batch["text"])
    changed = tf.reduce_any(text != batch["text"], axis=1)
    copies = {
        "image": tf.reverse(batch["image"], axis=[1, 2]),
        "text": text,
        "instance": tf.where(changed, -1 - batch["instance"], batch["instance"]),
    }
    return {
        name: tf.reshape(tf.stack([batch[name], copy], axis=1), [-1, *copy.shape[1:]])
        for name, copy in copies.items()
    }
