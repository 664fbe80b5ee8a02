"""All captions of a split, encoded and in memory (half a million take 70 MB), or judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpce.data.index_shuffle import pick
from tf_dpce.data.input_pipeline import caption_groups
from tf_dpce.data.manifest import Manifest
from tf_dpce.evaluation.vocabulary_coverage import count_captions
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

_BATCH = 1024
# Percent of the words of captions.
_KNOWN_WORDS = 50.0


@dataclass(frozen=True)
class CaptionTable:
    """The captions of a split, image by image in the order of the shards.

    Attributes:
        ids: int32 `[M, T]`, left-aligned.
        first: int64 `[N + 1]`: where an image's captions begin, and the last ones end.
        instances: int64 `[N]`, of the images.
    """

    ids: np.ndarray
    first: np.ndarray
    instances: np.ndarray


def encode_captions(data: Path, split: str, tokenizer: CaptionTokenizer) -> CaptionTable:
    """Encodes every caption of a split of prepared data."""
    ids, counts, instances = [], [], []
    for batch in caption_groups(data, split, _BATCH):
        ids.append(tokenizer(batch["captions"].flat_values).numpy())
        counts.append(batch["captions"].row_lengths().numpy())
        instances.append(batch["instance"].numpy())
    first = np.cumsum(np.concatenate([[0], *counts]))
    return CaptionTable(np.concatenate(ids), first, np.concatenate(instances))


class InstanceCaptions:
    """Draws a caption of any image of an instance: the recipe's for persons.

    What it draws is a function of instance and draw alone, so that resumed and shared training
    read the same captions.

    Args:
        table: of the training split.
    """

    def __init__(self, table: CaptionTable) -> None:
        of_caption = np.repeat(table.instances, np.diff(table.first))
        by_instance = np.argsort(of_caption, kind="stable")
        # Where the captions of each instance begin, and the last ones end.
        first = np.searchsorted(of_caption[by_instance], np.arange(of_caption.max() + 2))
        self._first = tf.constant(first)
        self._ids = tf.constant(table.ids[by_instance])

    def __call__(self, instances: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns int32 ids `[R, T]` for instances int64 `[R]` and uniform draws `[R]`."""
        first = tf.gather(self._first, instances)
        return tf.gather(
            self._ids, first + pick(draws, tf.gather(self._first, instances + 1) - first)
        )


def tell_unknown_words(
    data: Path, manifest: Manifest, tokenizer: CaptionTokenizer, say: Callable[[str], None]
) -> None:
    """Tells where a vocabulary knows few of the words of the captions, in training or validation.

    Training captions make the vocabulary, less what has no vector where `prepare` was given some:
    it has counted what is left. A run that this one starts from has the same vocabulary.

    Args:
        data: folder of prepared data.
        manifest: of that folder.
        tokenizer: of captions.
        say: called with a line.
    """
    remedy = "prepare anew, with --lowercase, without --vectors, or with vectors of this language"
    known, split = 100 * manifest.vocabulary_coverage, "train"
    if known >= _KNOWN_WORDS and manifest.splits["val"].captions:
        known, split = count_captions(data, "val", tokenizer).coverage()["known_words"], "val"
    if known < _KNOWN_WORDS:
        say(
            f"warning: only {known:.0f} % of the words in the captions of {split} are in the "
            f"vocabulary: {remedy}"
        )
