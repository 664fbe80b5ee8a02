"""How long training captions are, in tokens of the vocabulary, and what a tower cuts off.

Words are split at spaces and punctuation: captions in a script without spaces are hardly split.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tf_dpce.logging import logger
from tf_dpce.preprocessing.vocabulary import caption_words

if TYPE_CHECKING:
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

_BATCH = 4096
_NEARLY_ALL = 0.99
# Beginnings of the Unicode names of characters that are written without spaces between words.
_SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
# Words of a caption up to which it may be a sentence that was not split, apart from its commas.
_FEW_WORDS = 3
# Mean numbers of characters that words of a vocabulary reach only if they are whole sentences: in
# such scripts, where a word has one to three, and in others, where it has five to eight.
_LONG_SPACELESS, _LONG = 4, 12
UNSPLIT_WORDS = (
    "most captions are one long word, because words are split at spaces and punctuation alone: "
    "train with --text.tokenizer characters, or put spaces between the words of the captions, and "
    "of every query, with a word segmenter of the captions' language"
)


def count_lengths(captions: Sequence[str], tokenizer: CaptionTokenizer) -> dict[int, int]:
    """Returns the number of captions of each length, the shortest first.

    Args:
        captions: the captions.
        tokenizer: the tokenizer. Words outside its vocabulary take no token position, so that
            they do not count.

    Example:
        >>> tokenizer = CaptionTokenizer(["a", "dog"], max_length=1, lowercase=False)
        >>> count_lengths(["a dog", "a big dog", "two dogs"], tokenizer)
        {0: 1, 2: 2}
    """
    if tokenizer.kind == "words":
        known = set(tokenizer.words)
        words = caption_words(captions, tokenizer.lowercase)
        counts = Counter(sum(word in known for word in own) for own in words)
        return dict(sorted(counts.items()))
    import tensorflow as tf

    lengths: Counter[int] = Counter()
    for start in range(0, len(captions), _BATCH):
        ids = tokenizer.look_up(tf.constant(captions[start : start + _BATCH]))
        lengths.update(tf.reduce_sum(tf.cast(ids > 0, tf.int32), axis=1).numpy().tolist())
    return dict(sorted(lengths.items()))


def describe_lengths(lengths: Mapping[int, int]) -> str:
    """Returns a line that helps to choose `text.max_length`.

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
    return f"{most}, {100 * _NEARLY_ALL:.0f} % of them up to {nearly_all}"


def has_unsplit_words(lengths: Mapping[int, int], words: Sequence[str]) -> bool:
    """Returns whether captions seem to be sentences without spaces between their words.

    Args:
        lengths: number of captions of each length.
        words: the vocabulary.

    Example:
        >>> has_unsplit_words({1: 2}, ["白色背景上的红色圆", "一只狗在公园里奔跑"])
        True
        >>> has_unsplit_words({1: 2}, ["dog", "motorcycle"])
        False
    """
    few = sum(count for length, count in lengths.items() if length <= _FEW_WORDS)
    spaceless = sum(any(_is_spaceless(letter) for letter in word) for word in words)
    long = _LONG_SPACELESS if 2 * spaceless > len(words) else _LONG
    return 2 * few > sum(lengths.values()) and sum(map(len, words)) >= long * len(words)


def _is_spaceless(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(_SPACELESS)


def warn_cut_captions(lengths: Mapping[int, int], max_length: int) -> None:
    """Logs how many training captions do not fit into the text tower, if any.

    Args:
        lengths: number of training captions of each length.
        max_length: T, the number of token positions of the tower.
    """
    longer = {n: count for n, count in lengths.items() if n > max_length}
    if longer:
        lost = sum((n - max_length) * count for n, count in longer.items())
        logger.warning(
            f"{sum(longer.values()):,} of {sum(lengths.values()):,} training captions "
            f"have more than the {max_length} tokens of --text.max_length, up to {max(longer)}: "
            f"{lost:,} tokens are cut off"
        )
