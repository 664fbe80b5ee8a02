"""Sentence -> word ids, in the graph: the same operations in training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_text as tf_text

# The authors' code splits on these and the space; runs of them count as one. White space is
# Unicode's: RE2's own class knows ASCII alone.
_DELIMITERS = r"[-\s\x0b\p{Z}\x{85}.,()?]+"

_HOST = "/device:CPU:0"


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


class CaptionEncoder(tf.Module):
    """Turns sentences into left-aligned word ids.

    Words outside the vocabulary are dropped and take no place (the authors' code); what is
    beyond `max_length` known words is cut off.

    Args:
        words: the vocabulary; the id of a word is its place, counted from 1.
        max_length: T, the number of places.
        lowercase: whether sentences are lower-cased before the look-up.

    Example:
        >>> encoder = CaptionEncoder(["dog", "cat"], max_length=3, lowercase=True)
        >>> encoder(tf.constant(["A cat, a DOG"])).numpy()
        array([[2, 1, 0]], dtype=int32)
    """

    def __init__(self, words: Sequence[str], max_length: int, lowercase: bool) -> None:
        super().__init__()
        self.words = tuple(words)
        self.max_length = max_length
        self.lowercase = lowercase
        ids = tf.range(1, len(self.words) + 1, dtype=tf.int32)
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(self.words), ids)
        self.table = _HostTable(pairs, default_value=0)

    def __call__(self, captions: tf.Tensor) -> tf.Tensor:
        """Returns int32 ids `[B, T]` of string captions `[B]`; 0 is an empty place."""
        ids = self.look_up(captions)
        known = tf.ragged.boolean_mask(ids, ids > 0)
        return known.to_tensor(0, shape=[None, self.max_length])

    def look_up(self, captions: tf.Tensor) -> tf.RaggedTensor:
        """Returns the id of every word of string captions `[B]`, ragged int32 `[B, None]`.

        0 is a word outside the vocabulary.
        """
        if self.lowercase:
            captions = tf.strings.lower(captions, encoding="utf-8")
        words = split_words(captions)
        return words.with_flat_values(self.table.lookup(words.flat_values))


class _HostTable(tf.lookup.StaticHashTable):
    """A table that is made and filled in the memory of the host, in exports as well.

    Its words are strings, which a server with a GPU must leave there.
    """

    def _create_resource(self) -> tf.Tensor:
        with tf.device(_HOST):
            return super()._create_resource()

    def _initialize(self) -> tf.Operation:
        with tf.device(_HOST):
            return super()._initialize()


def position_shift(ids: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Moves each caption to a uniformly drawn start (paper section 3.3; the authors' code).

    A caption of n words starts anywhere from 0 to T - n; the places around it are empty.

    Args:
        ids: left-aligned int32 ids `[B, T]`.
        draws: float32 `[B]`, uniform in 0..1.

    Returns:
        int32 `[B, T]`.
    """
    free = _free_places(ids)
    starts = tf.cast(draws * tf.cast(free + 1, tf.float32), tf.int32)
    # A draw next to 1 may round up to the number of starts itself.
    return _moved(ids, tf.minimum(starts, free))


def all_shifts(ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves each caption to every start at which it fits (the authors' test).

    Args:
        ids: left-aligned int32 ids `[B, T]`.

    Returns:
        int32 `[R, T]`, a caption of n words in T + 1 - n rows, by their starts; and int64 `[R]`,
        which caption each row is of, in their order.
    """
    starts = tf.ragged.range(_free_places(ids) + 1)
    owners = starts.value_rowids()
    return _moved(tf.gather(ids, owners), starts.flat_values), owners


def _free_places(ids: tf.Tensor) -> tf.Tensor:
    return tf.shape(ids)[1] - tf.math.count_nonzero(ids, axis=1, dtype=tf.int32)


def _moved(ids: tf.Tensor, starts: tf.Tensor) -> tf.Tensor:
    places = tf.range(tf.shape(ids)[1])[tf.newaxis, :] - starts[:, tf.newaxis]
    return tf.gather(ids, places % tf.shape(ids)[1], batch_dims=1)
