"""Turns captions into token ids as the exported graph does, in plain Python."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.words import plain_pieces, plain_words

_WHITE = "\t\n\f\r "


class Tokenizer:
    """Turns captions into token ids, aligned left; see `preprocessing.tokenizer`.

    Args:
        words: the vocabulary; the id of a word is its position in it, counted from 1.
        max_length: T, the number of token positions.
        lowercase: whether captions are lower-cased before the look-up.
        pieces: whether the vocabulary consists of pieces of words.

    Attributes:
        words: the vocabulary, a tuple.

    Example:
        >>> ids, codes = Tokenizer(["dog", "cat"], 3, lowercase=True)([b"A cat, a DOG", b"..."])
        >>> ids.tolist(), codes.tolist()
        ([[2, 1, 0], [0, 0, 0]], [0, 6])
    """

    def __init__(
        self, words: Sequence[str], max_length: int, lowercase: bool, pieces: bool = False
    ) -> None:
        self.words = tuple(words)
        self._ids = {word: number for number, word in enumerate(words, start=1)}
        self._max_length = max_length
        self._lowercase = lowercase
        self._pieces = pieces

    def __call__(self, captions: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids int32 `[B, T]` and statuses int32 `[B]` of captions in UTF-8."""
        ids = np.zeros((len(captions), self._max_length), np.int32)
        codes = np.full(len(captions), status.TOO_MANY_BYTES, np.int32)
        for row, caption in enumerate(captions):
            if len(caption) <= status.MAX_CAPTION_BYTES:
                text = caption.decode("utf-8", "replace")
                known = self._look_up(text)[: self._max_length]
                ids[row, : len(known)] = known
                codes[row] = _status(text, known)
        return ids, codes

    def _look_up(self, text: str) -> list[int]:
        if self._lowercase:
            # TensorFlow lower-cases what comes before a NUL, and drops the rest.
            text = text.partition("\0")[0].lower()
        words = plain_words(text)
        if self._pieces:
            words = [piece for word in words for piece in plain_pieces(word, self._ids)]
        return [self._ids[word] for word in words if word in self._ids]


def _status(text: str, known: Sequence[int]) -> int:
    if known:
        return status.OK
    white = all(sign in _WHITE or unicodedata.category(sign)[0] == "Z" for sign in text)
    return status.EMPTY if white else status.NO_KNOWN_WORD
