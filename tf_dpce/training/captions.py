"""All captions of a split, encoded and in memory (half a million take 70 MB), or judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_dpce.data.pipeline import caption_groups
from tf_dpce.evaluation.captions import count_captions
from tf_dpce.preprocessing.text import CaptionEncoder

_BATCH = 1024
# Percent of the words of captions.
_KNOWN_WORDS = 50.0


@dataclass(frozen=True)
class CaptionTable:
    """The captions of a split, picture by picture in the order of the shards.

    Attributes:
        ids: int32 `[M, T]`, left-aligned.
        first: int64 `[N + 1]`: where a picture's captions begin, and the last ones end.
        instances: int64 `[N]`, of the pictures.
    """

    ids: np.ndarray
    first: np.ndarray
    instances: np.ndarray


def encode_captions(data: Path, split: str, encoder: CaptionEncoder) -> CaptionTable:
    """Encodes every caption of a split of prepared data."""
    ids, counts, instances = [], [], []
    for batch in caption_groups(data, split, _BATCH):
        ids.append(encoder(batch["captions"].flat_values).numpy())
        counts.append(batch["captions"].row_lengths().numpy())
        instances.append(batch["instance"].numpy())
    first = np.cumsum(np.concatenate([[0], *counts]))
    return CaptionTable(np.concatenate(ids), first, np.concatenate(instances))


def tell_unknown_words(
    data: Path, split: str, encoder: CaptionEncoder, say: Callable[[str], None]
) -> None:
    """Tells where a vocabulary knows few of the words of a split's captions."""
    known = count_captions(data, split, encoder).coverage()
    if known["known_words"] < _KNOWN_WORDS:
        say(
            f"warning: only {known['known_words']:.0f} % of the words in the captions of {split} "
            f"are in the vocabulary, and {known['captions_without_known_word']:.0f} % of the "
            "captions have none: prepare anew, with --lowercase, without --vectors, or with "
            "vectors of this language"
        )
