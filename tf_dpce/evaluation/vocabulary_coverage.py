"""How many words and captions of a split a vocabulary covers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpce.data.input_pipeline import caption_groups
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

_IMAGES = 64


@dataclass(frozen=True)
class CaptionCounts:
    """Numbers of captions and of their words.

    Attributes:
        per_image: int64 `[N]`, number of captions of each image, in the order of the shards.
        words: number of words of all captions; every prepared caption has one.
        known_words: number of words that the vocabulary holds.
        without_known_word: number of captions that have no known word.
        cut: number of captions with more known words than the model has token positions.
        lost_words: number of known words beyond the last position.
    """

    per_image: np.ndarray
    words: int
    known_words: int
    without_known_word: int
    cut: int
    lost_words: int

    @property
    def images(self) -> np.ndarray:
        """The index of each caption's image, int64 `[M]`, in the order of the captions."""
        return np.repeat(np.arange(len(self.per_image)), self.per_image)

    def coverage(self) -> dict[str, float]:
        """Returns how much of the captions a vocabulary covers, in percent.

        `known_words` is the share of words that the vocabulary holds, also of those beyond the
        last position of a caption. `captions_without_known_word` is the share of captions of which
        the model sees nothing.
        """
        captions = int(self.per_image.sum())
        return {
            "known_words": 100 * self.known_words / self.words,
            "captions_without_known_word": 100 * self.without_known_word / captions,
        }


def count_captions(folder: Path, split: str, tokenizer: CaptionTokenizer) -> CaptionCounts:
    """Counts the captions of a split, and the words that are known."""
    count = tf.function(
        lambda captions: _count(tokenizer, captions),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    per_image, totals = [np.zeros(0, np.int64)], np.zeros(5, np.int64)
    for batch in caption_groups(folder, split, _IMAGES):
        per_image.append(batch["captions"].row_lengths().numpy())
        totals += count(batch["captions"].flat_values).numpy()
    return CaptionCounts(np.concatenate(per_image), *totals.tolist())


def _count(tokenizer: CaptionTokenizer, captions: tf.Tensor) -> tf.Tensor:
    """Returns the last five of `CaptionCounts`, int64 `[5]`."""
    ids = tokenizer.look_up(captions)
    known = tf.reduce_sum(tf.cast(ids > 0, tf.int64), axis=1)
    words = tf.size(ids.flat_values, tf.int64)
    beyond = tf.maximum(known - tokenizer.max_length, 0)
    counts = [tf.math.count_nonzero(known == 0), tf.math.count_nonzero(beyond)]
    return tf.stack([words, tf.reduce_sum(known), *counts, tf.reduce_sum(beyond)])
