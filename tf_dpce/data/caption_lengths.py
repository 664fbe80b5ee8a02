"""How long training captions are, in words that the vocabulary holds, and what places cut off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tf_dpce.data.manifest import Manifest
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

_BATCH = 4096
_NEARLY_ALL = 0.99


def count_lengths(captions: Sequence[str], words: Sequence[str], lowercase: bool) -> dict[int, int]:
    """Returns the number of captions of each length, the shortest first.

    Args:
        captions: sentences.
        words: the vocabulary. Words outside it take no place, so that they do not count.
        lowercase: whether captions are lower-cased before the look-up.

    Example:
        >>> count_lengths(["a dog", "a big dog", "two dogs"], ["a", "dog"], lowercase=False)
        {0: 1, 2: 2}
    """
    tokenizer, lengths = CaptionTokenizer(words, 1, lowercase), Counter()
    for start in range(0, len(captions), _BATCH):
        ids = tokenizer.look_up(tf.constant(captions[start : start + _BATCH]))
        lengths.update(tf.reduce_sum(tf.cast(ids > 0, tf.int32), axis=1).numpy().tolist())
    return dict(sorted(lengths.items()))


def describe_lengths(lengths: Mapping[int, int]) -> str:
    """Says what helps to choose `text.max_length`.

    Example:
        >>> describe_lengths({8: 990, 12: 9, 40: 1})
        'training captions hold up to 40 of these words, 99 % of them up to 8'
    """
    captions, nearly_all = 0, 0
    for nearly_all in sorted(lengths):
        captions += lengths[nearly_all]
        if captions >= _NEARLY_ALL * sum(lengths.values()):
            break
    most = f"training captions hold up to {max(lengths)} of these words"
    return f"{most}, {_NEARLY_ALL:.0%} of them up to {nearly_all}".replace("%", " %")


def tell_cut_captions(manifest: Manifest, places: int, say: Callable[[str], None]) -> None:
    """Tells how many training captions do not fit into the text tower, if any.

    Args:
        manifest: of the training data; of an earlier version, which did not count, nothing is told.
        places: T, words that the tower takes.
        say: called with a line.
    """
    longer = {n: count for n, count in (manifest.caption_lengths or {}).items() if n > places}
    cut, all_captions = sum(longer.values()), manifest.splits["train"].captions
    if cut:
        lost = sum((n - places) * count for n, count in longer.items())
        say(
            f"{cut:,} of {all_captions:,} training captions have more than the {places} words of "
            f"--text.max_length, up to {max(longer)}: {lost:,} words are cut off"
        )
