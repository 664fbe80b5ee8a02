"""Which words of a query are named as unknown, whatever the model takes for a token."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.search.plain import DIMENSION, PlainEncoder
from tf_dpce.preprocessing.status import NO_KNOWN_WORD, OK
from tf_dpce.preprocessing.words import plain_characters, plain_words
from tf_dpce.search.queries.query import Term
from tf_dpce.search.queries.query_encoder import QueryEncoder


class Knowing(PlainEncoder):
    """A model that knows some tokens: words, or characters as `text.tokenizer` splits them."""

    def __init__(self, known: set[str], characters: bool) -> None:
        super().__init__()
        self.known, self.characters = known, characters

    def encode_with_status(self, kind: str, items: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows, codes = super().encode_with_status(kind, items)
        for row, text in enumerate(items):
            words = plain_words(text)
            tokens = sum(map(plain_characters, words), []) if self.characters else words
            codes[row] = OK if self.known & set(tokens) else NO_KNOWN_WORD
        return rows, codes


@pytest.mark.parametrize(
    ("characters", "known", "query", "unknown"),
    [
        (True, {"红", "色", "dog"}, "红色的dog, cat 和红", ("的", "cat", "和")),
        (True, {"dog"}, "红色 dog", ("红色",)),
        # A word that a segmenter made; its characters are no words, and nobody asked for them.
        (False, {"红色", "dog"}, "红色 dog 的狗", ("的狗",)),
        (False, {"dog"}, "a dog", ("a",)),
    ],
)
def test_what_a_model_does_not_read_is_named(characters, known, query, unknown):
    encoder, index = Knowing(known, characters), SimpleNamespace(dimension=DIMENSION)
    found = QueryEncoder(encoder).embed([Term(text=query)], index, "images")
    assert found.unknown_words == unknown
