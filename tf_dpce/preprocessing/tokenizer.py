"""Turns captions into token ids, in the graph: the same operations in training and serving."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from tf_dpce.config import TextConfig, TokenKind
from tf_dpce.errors import UserError
from tf_dpce.preprocessing.vocabulary import (
    characters_of,
    count_words,
    rank_words,
    space_characters,
    split_words,
)
from tf_dpce.preprocessing.words import JOINER, MAX_WORD_BYTES

_HOST = "/device:CPU:0"


class CaptionTokenizer(tf.Module):
    """Turns captions into token ids, aligned left.

    Words outside the vocabulary are dropped and take no token position (the authors' code). After
    the first `max_length` known words a caption is cut.

    Args:
        words: the vocabulary; the id of a word is its position in it, counted from 1.
        max_length: T, the number of token positions.
        lowercase: whether captions are lower-cased before the look-up.
        inferred: how many of the last words have vectors that were inferred, not trained.
        kind: what a word of the vocabulary is: one of a caption's "words"; a "wordpiece", see
            `words.plain_pieces`; or one of its "characters" if its script has no spaces between
            words, see `vocabulary.space_characters`.

    Attributes:
        words: the vocabulary, a tuple.
        inferred: how many of the last words have vectors that were inferred.
        kind: what a word of the vocabulary is.
        max_length: T.
        lowercase: whether captions are lower-cased.
        vocabulary_size: V, the number of words; ids run from 1 to V.

    Example:
        >>> tokenizer = CaptionTokenizer(["dog", "cat"], max_length=3, lowercase=True)
        >>> tokenizer(tf.constant(["A cat, a DOG"])).numpy()
        array([[2, 1, 0]], dtype=int32)
    """

    def __init__(
        self,
        words: Sequence[str],
        max_length: int,
        lowercase: bool,
        inferred: int = 0,
        kind: TokenKind = "words",
    ) -> None:
        super().__init__()
        self.kind = kind
        self.words = tuple(words)
        self.inferred = inferred
        self.max_length = max_length
        self.lowercase = lowercase
        # The operation that finds pieces ends the process if a table has values of another type.
        dtype = tf.int64 if kind == "wordpiece" else tf.int32
        ids = tf.range(1, len(self.words) + 1, dtype=dtype)
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(self.words), ids)
        self.table = _HostTable(pairs, default_value=0)

    @classmethod
    def adapt(
        cls, captions: Iterable[str], max_length: int = 32, lowercase: bool = True
    ) -> CaptionTokenizer:
        """Returns a tokenizer whose vocabulary consists of all words of the given captions.

        Args:
            captions: the training captions; do not give captions of other splits.
            max_length: T, the number of token positions.
            lowercase: whether captions are lower-cased, here and whenever the tokenizer is called.

        Raises:
            UserError: the captions hold no word.

        Example:
            >>> CaptionTokenizer.adapt(["A dog.", "a cat"], max_length=8).words
            ('a', 'cat', 'dog')
        """
        words = rank_words(count_words(list(captions), lowercase))
        if not words:
            raise UserError("vocabulary.empty", "the captions hold no word: check their column")
        return cls(words, max_length, lowercase)

    @classmethod
    def of_run(cls, words: Sequence[str], text: TextConfig, lowercase: bool) -> CaptionTokenizer:
        """Returns the tokenizer of a configuration.

        Args:
            words: the vocabulary of the prepared data; for "wordpiece" the pieces.
            text: the section `text` of the configuration.
            lowercase: whether the prepared data's words are lower-cased.
        """
        tokens = characters_of(words) if text.tokenizer == "characters" else words
        return cls(tokens, text.max_length, lowercase, kind=text.tokenizer)

    @property
    def vocabulary_size(self) -> int:
        """V, the number of words."""
        return len(self.words)

    @property
    def unit(self) -> str:
        """What captions consist of for the model, in the plural."""
        return "pieces of words" if self.kind == "wordpiece" else self.kind

    def __call__(self, captions: tf.Tensor) -> tf.Tensor:
        """Returns int32 ids `[B, T]` of string captions `[B]`; 0 is an empty token position."""
        ids = self.look_up(captions)
        known = tf.ragged.boolean_mask(ids, ids > 0)
        return known.to_tensor(0, shape=[None, self.max_length])

    def count_inferred(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns how many words of captions have inferred vectors.

        Args:
            ids: int32 `[B, T]`.

        Returns:
            int32 `[B]`.
        """
        beyond = ids > len(self.words) - self.inferred
        return tf.math.count_nonzero(beyond, axis=1, dtype=tf.int32)

    def look_up(self, captions: tf.Tensor) -> tf.RaggedTensor:
        """Finds the ids of all words of captions.

        Args:
            captions: strings `[B]`.

        Returns:
            The ids, ragged int32 `[B, None]`; 0 is a word outside the vocabulary.
        """
        return self.ids(self.split(captions))

    def split(self, captions: tf.Tensor) -> tf.RaggedTensor:
        """Splits captions into tokens, known or not.

        Args:
            captions: strings `[B]`.

        Returns:
            The tokens, ragged strings `[B, None]`.
        """
        if self.lowercase:
            captions = tf.strings.lower(captions, encoding="utf-8")
        if self.kind == "characters":
            captions = space_characters(captions)
        words = split_words(captions)
        return self._split_pieces(words) if self.kind == "wordpiece" else words

    def ids(self, tokens: tf.RaggedTensor) -> tf.RaggedTensor:
        """Finds the ids of tokens.

        Args:
            tokens: ragged strings `[B, None]`, as `split` returns them.

        Returns:
            The ids, ragged int32 `[B, None]`; 0 is a token outside the vocabulary.
        """
        return tokens.with_flat_values(tf.cast(self.table.lookup(tokens.flat_values), tf.int32))

    def _split_pieces(self, words: tf.RaggedTensor) -> tf.RaggedTensor:
        import tensorflow_text as tf_text

        # A word without pieces is one that the table does not know: it stays whole.
        splitter = tf_text.WordpieceTokenizer(
            self.table, JOINER, MAX_WORD_BYTES, unknown_token=None, token_out_type=tf.string
        )
        return splitter.tokenize(words).merge_dims(1, 2)


class _HostTable(tf.lookup.StaticHashTable):
    """A table that is created and filled in the memory of the host, in exports as well.

    Its keys are strings, which a GPU cannot hold.
    """

    def _create_resource(self) -> tf.Tensor:
        with tf.device(_HOST):
            return super()._create_resource()

    def _initialize(self) -> tf.Operation:
        with tf.device(_HOST):
            return super()._initialize()


def position_shift(ids: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Moves each caption to a uniformly drawn start (paper section 3.3; the authors' code).

    A caption of n words starts at any token position from 0 to T - n; those around it are empty.

    Args:
        ids: left-aligned int32 ids `[B, T]`.
        draws: float32 `[B]`, uniform in 0..1.

    Returns:
        int32 `[B, T]`.
    """
    length = tf.shape(ids)[1]
    free = length - tf.math.count_nonzero(ids, axis=1, dtype=tf.int32)
    starts = tf.cast(draws * tf.cast(free + 1, tf.float32), tf.int32)
    # A draw close to 1 may round up to the number of starts itself.
    starts = tf.minimum(starts, free)
    positions = tf.range(length)[tf.newaxis, :] - starts[:, tf.newaxis]
    return tf.gather(ids, positions % length, batch_dims=1)
