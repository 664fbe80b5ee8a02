"""The vocabulary: the words of the training captions, one a line; a word's id is its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import tensorflow as tf
import tensorflow_text as tf_text

from tf_dpce.errors import UserError
from tf_dpce.files import publish_file

_BATCH = 4096

# The authors' code splits on these and the space; runs of them count as one. White space is
# Unicode's: RE2's own class knows ASCII alone.
_DELIMITERS = r"[-\s\x0b\p{Z}\x{85}.,()?]+"


def split_words(captions: tf.Tensor) -> tf.RaggedTensor:
    """Splits captions into words on `- . , ( ) ?` and white space (the authors' code).

    Args:
        captions: string `[B]`; bytes that are not UTF-8 become replacement characters.

    Returns:
        Ragged strings `[B, None]`, without empty words.

    Example:
        >>> split_words(tf.constant(["A dog (brown), asleep."])).to_list()
        [[b'A', b'dog', b'brown', b'asleep']]
    """
    readable = tf.strings.unicode_transcode(captions, "UTF-8", "UTF-8", errors="replace")
    # The splitter takes a NUL for the end of the string.
    readable = tf.strings.regex_replace(readable, r"\x00", " ")
    words = tf_text.regex_split(readable, delim_regex_pattern=_DELIMITERS)
    return tf.ragged.boolean_mask(words, words != "")


def count_words(captions: Sequence[str], lowercase: bool) -> Counter[str]:
    """Counts the words of captions, as `CaptionTokenizer` will see them.

    Example:
        >>> count_words(["A dog.", "a cat"], lowercase=True)
        Counter({'a': 2, 'dog': 1, 'cat': 1})
    """
    counts: Counter[str] = Counter()
    for words in _split_batches(captions, lowercase):
        counts.update(word.decode() for word in words.flat_values.numpy())
    return counts


def without_words(captions: Sequence[str]) -> list[bool]:
    """Tells which captions hold no word at all, only delimiters."""
    empty: list[bool] = []
    for words in _split_batches(captions, lowercase=False):
        empty.extend((words.row_lengths() == 0).numpy().tolist())
    return empty


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
    with publish_file(path) as temporary:
        temporary.write_bytes("".join(f"{word}\n" for word in words).encode())


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


def _split_batches(captions: Sequence[str], lowercase: bool) -> Iterator[tf.RaggedTensor]:
    for start in range(0, len(captions), _BATCH):
        batch = tf.constant(captions[start : start + _BATCH])
        yield split_words(tf.strings.lower(batch, "utf-8") if lowercase else batch)
