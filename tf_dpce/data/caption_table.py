"""All captions of a split, encoded and in memory; half a million take 70 MB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpce.data.index_shuffle import pick
from tf_dpce.data.input_pipeline import Captions, caption_groups
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

_BATCH = 1024


@dataclass(frozen=True)
class CaptionTable:
    """The captions of a split, image by image in the order of the shards.

    Attributes:
        ids: int32 `[M, T]`, left-aligned.
        first: int64 `[N + 1]`, the row of each image's first caption, and M.
        instances: int64 `[N]`, the instance of each image.
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


def captions_of_images(table: CaptionTable) -> Captions:
    """Returns a function that draws one of an image's own captions, by the image's position."""
    return _drawn(table.first, table.ids)


def captions_of_instances(table: CaptionTable) -> Captions:
    """Returns a function that draws a caption of any image of an instance, by the instance's id.

    So does the recipe for persons.
    """
    of_caption = np.repeat(table.instances, np.diff(table.first))
    by_instance = np.argsort(of_caption, kind="stable")
    # The first caption of each instance, and the number of all.
    first = np.searchsorted(of_caption[by_instance], np.arange(of_caption.max() + 2))
    return _drawn(first, table.ids[by_instance])


def _drawn(first: np.ndarray, ids: np.ndarray) -> Captions:
    """Draws one of the captions from `first[row]` to `first[row + 1]` - 1 for each row.

    It is a function of row and draw alone, so that a resumed run and every worker read the same
    captions.
    """
    first, ids = tf.constant(first), tf.constant(ids)

    def draw(rows: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        start = tf.gather(first, rows)
        return tf.gather(ids, start + pick(draws, tf.gather(first, rows + 1) - start))

    return draw
