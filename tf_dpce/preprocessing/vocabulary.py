"""The vocabulary: the words of the training captions, one a line; a word's id is its line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tf_dpce.errors import UserError
from tf_dpce.files import publish_bytes
from tf_dpce.preprocessing.words import ENDINGS, LIKE_APOSTROPHES, plain_words

if TYPE_CHECKING:
    import tensorflow as tf

_BATCH = 4096

# White space is Unicode's, because RE2's own class knows ASCII alone. The second class is all
# punctuation but an apostrophe and an underscore.
_DELIMITERS = r"(?:[\s\x0b\x{85}\p{Z}]|[^\P{P}'_])+"
# A mark that belongs to a letter, as vowels of Thai do, stays with it.
_SPACELESS = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*|ー)"
_ENDING = f"(?i)'(?:{'|'.join(ENDINGS)})"


def split_words(captions: tf.Tensor) -> tf.RaggedTensor:
    """Splits captions into words at white space and punctuation, see `preprocessing.words`.

    The authors' code knows the punctuation `- . , ( ) ?` only. Its captions have other marks as
    words of their own, if at all.

    Args:
        captions: string `[B]`; bytes that are not UTF-8 become replacement characters.

    Returns:
        Ragged strings `[B, None]`, without empty words.

    Example:
        >>> split_words(tf.constant(["A dog (brown), asleep!"])).to_list()
        [[b'A', b'dog', b'brown', b'asleep']]
    """
    import tensorflow as tf
    import tensorflow_text as tf_text

    readable = tf.strings.unicode_transcode(captions, "UTF-8", "UTF-8", errors="replace")
    # The splitter takes a NUL for the end of the string.
    readable = tf.strings.regex_replace(readable, r"\x00", " ")
    readable = tf_text.normalize_utf8(readable, "NFC")
    readable = tf.strings.regex_replace(readable, f"[{LIKE_APOSTROPHES}]", "'")
    words = tf_text.regex_split(readable, delim_regex_pattern=_DELIMITERS)
    flat = words.flat_values
    bare = tf.strings.regex_replace(flat, r"^'+|'+$", "")
    bare = tf.where(tf.strings.regex_full_match(flat, _ENDING), flat, bare)
    return tf.ragged.boolean_mask(words.with_flat_values(bare), words.with_flat_values(bare != ""))


def space_characters(captions: tf.Tensor) -> tf.Tensor:
    """Puts spaces around each character of scripts that have none between words.

    These are Chinese, Japanese and Thai, and Lao, Khmer and Burmese. Words of other scripts in the
    same caption stay whole.

    Args:
        captions: string `[B]`; bytes that are not UTF-8 become replacement characters.

    Example:
        >>> spaced = space_characters(tf.constant(["两dogs"]))
        >>> [word.decode() for word in split_words(spaced).flat_values.numpy()]
        ['两', 'dogs']
    """
    import tensorflow as tf
    import tensorflow_text as tf_text

    readable = tf.strings.unicode_transcode(captions, "UTF-8", "UTF-8", errors="replace")
    # A character that is written as two becomes one before it could be torn.
    return tf.strings.regex_replace(tf_text.normalize_utf8(readable, "NFC"), _SPACELESS, r" \1 ")


def characters_of(words: Sequence[str]) -> list[str]:
    """Returns a vocabulary of single characters from that of captions which were hardly split.

    Example:
        >>> characters_of(["一只狗", "dog", "一只猫"])
        ['一', '只', '狗', 'dog', '猫']
    """
    import tensorflow as tf

    found = split_words(space_characters(tf.constant(list(words)))).flat_values.numpy()
    return [word.decode() for word in dict.fromkeys(found.tolist())]


def count_words(captions: Sequence[str], lowercase: bool) -> Counter[str]:
    """Counts the words of captions, as `CaptionTokenizer` will see them.

    Example:
        >>> count_words(["A dog.", "a cat"], lowercase=True)
        Counter({'a': 2, 'dog': 1, 'cat': 1})
    """
    return Counter(chain.from_iterable(caption_words(captions, lowercase)))


def caption_words(captions: Sequence[str], lowercase: bool) -> Iterator[list[str]]:
    """Yields the words of each caption, as `CaptionTokenizer` will see them.

    Example:
        >>> list(caption_words(["A dog.", "a cat"], lowercase=True))
        [['a', 'dog'], ['a', 'cat']]
    """
    for start in range(0, len(captions), _BATCH):
        batch = captions[start : start + _BATCH]
        # Plain Python finds the same words of ASCII in less time.
        others = iter(_split([text for text in batch if not text.isascii()], lowercase))
        for text in batch:
            lowered = text.lower() if lowercase else text
            yield plain_words(lowered) if text.isascii() else next(others)


def without_words(captions: Sequence[str]) -> list[bool]:
    """Tells which captions hold no word at all, only delimiters."""
    # A letter of ASCII, or a digit, is a part of a word: most captions need not be split.
    return [not (re.search("[0-9A-Za-z]", text) or plain_words(text)) for text in captions]


def rank_words(counts: Counter[str], only: Collection[str] | None = None) -> list[str]:
    """Returns the vocabulary: counted words, the most frequent first, equals by alphabet.

    Args:
        counts: the words of the training captions, and of no others.
        only: the words to take, such as those that have a vector; None takes all.

    Example:
        >>> rank_words(count_words(["A dog.", "a cat"], lowercase=True))
        ['a', 'cat', 'dog']
    """
    words = (word for word in counts if only is None or word in only)
    return sorted(words, key=lambda word: (-counts[word], word))


def write_vocabulary(path: Path, words: Sequence[str]) -> None:
    """Writes one word a line, atomically."""
    publish_bytes(path, "".join(f"{word}\n" for word in words).encode())


def read_vocabulary(path: Path) -> list[str]:
    """Returns the words of a vocabulary file, in their order.

    Raises:
        UserError: the file is missing, empty, not UTF-8, or has an empty or repeated line.
    """
    try:
        lines = path.read_bytes().decode().split("\n")
    except FileNotFoundError:
        message = f"{path} does not exist: run prepare first"
        raise UserError("vocabulary.file", message, path) from None
    except UnicodeDecodeError:
        message = f"{path} is not UTF-8: it is no vocabulary"
        raise UserError("vocabulary.damaged", message, path) from None
    words = lines[:-1] if lines[1:] and lines[-1] == "" else lines
    seen: set[str] = set()
    for number, word in enumerate(words, start=1):
        if not word or word in seen:
            message = f"{path} line {number} is empty or repeats a word: run prepare again"
            raise UserError("vocabulary.damaged", message, path, number)
        seen.add(word)
    return words


def _split(captions: Sequence[str], lowercase: bool) -> list[list[str]]:
    if not captions:
        return []
    import tensorflow as tf

    batch = tf.constant(captions)
    words = split_words(tf.strings.lower(batch, "utf-8") if lowercase else batch)
    return [[word.decode() for word in found] for found in words.to_list()]
