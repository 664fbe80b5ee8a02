"""The captions of a split: their text, and how much of it the model knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tf_dpce.data.input_pipeline import caption_groups
from tf_dpce.drawing.charts import Chart
from tf_dpce.evaluation.embedded_split import EmbeddedSplit
from tf_dpce.evaluation.html_report.searched import Searched
from tf_dpce.evaluation.html_report.texts import say
from tf_dpce.evaluation.metrics import RECALLS

_IMAGES = 64
_GROUPS = 6  # of captions by their length, at most


@dataclass(frozen=True)
class Captions:
    """The captions of a split, image by image.

    Attributes:
        texts: the captions.
        image_ids: the name of each image in its data set.
        words: int `[M]`, number of words of each caption.
        known: int `[M]`, number of words that the model knows.
        unknown: the words that it does not, and how often they occur.
    """

    texts: Sequence[str]
    image_ids: Sequence[str]
    words: np.ndarray
    known: np.ndarray
    unknown: Counter[str]


def read_captions(embedded: EmbeddedSplit) -> Captions:
    """Reads the captions of a split; only their texts and the unknown words are held."""
    tokenizer = embedded.encoder.tokenizer
    texts, image_ids, lengths, unknown = [], [], [], Counter()
    for batch in caption_groups(embedded.folder, embedded.split, _IMAGES):
        captions = batch["captions"].flat_values
        texts += [text.decode(errors="replace") for text in captions.numpy()]
        image_ids += [name.decode(errors="replace") for name in batch["image_id"].numpy()]
        tokens = tokenizer.split(captions)
        ids = tokenizer.ids(tokens)
        known = tf.reduce_sum(tf.cast(ids > 0, tf.int32), axis=1)
        lengths.append(np.stack([ids.row_lengths().numpy(), known.numpy()], axis=1))
        strange = tokens.flat_values[ids.flat_values == 0]
        unknown.update(word.decode(errors="replace") for word in strange.numpy())
    return Captions(texts, image_ids, *np.concatenate(lengths).T, unknown)


def recall_by_length(
    captions: Captions, found: Searched, unit: str
) -> tuple[Chart, list[list[str]]]:
    """Compares captions of different lengths as queries.

    Args:
        captions: all captions of the split.
        found: what they found as queries.
        unit: what their lengths are counted in.

    Returns:
        A chart, and the rows of a table: lengths, captions, and the recalls. Groups are about
        equally large, and captions of one length are in one group.
    """
    lengths = captions.words[found.queries]
    inner = np.quantile(lengths, np.linspace(0, 1, _GROUPS + 1)[1:], method="lower")
    lines: Mapping[str, list] = {f"R@{k}": [] for k in RECALLS}
    names, rows = [], []
    lowest = lengths.min()
    for highest in np.unique(inner):
        ranks = found.ranks[(lengths >= lowest) & (lengths <= highest)]
        recalls = [100 * float(np.mean(ranks <= k)) for k in RECALLS]
        for line, recall in zip(lines.values(), recalls, strict=True):
            line.append((len(names), recall))
        names.append(f"{lowest}" if lowest == highest else f"{lowest} to {highest}")
        rows.append([names[-1], f"{len(ranks):,}", *(f"{recall:.1f}" for recall in recalls)])
        lowest = highest + 1
    title, y_label = "Recall of images by the length of the caption", "percent of captions"
    return Chart("lengths", title, say("length", unit=unit), y_label, lines, names, top=100), rows
