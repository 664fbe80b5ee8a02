"""Which words of a query are named as unknown, whatever the model takes for a token."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.search.plain import DIMENSION, PlainEncoder
from tf_dpce.preprocessing.status import NO_KNOWN_WORD, OK
from tf_dpce.preprocessing.words import plain_characters, plain_words
from tf_dpce.search.queries.query import Term
from tf_dpce.search.queries.query_encoder import QueryEncoder


def characters(text: str) -> list[str]:
    return [part for word in plain_words(text) for part in plain_characters(word)]


class Knowing(PlainEncoder):
    """A model that knows some tokens."""

    def __init__(self, tokens: Callable[[str], list[str]], known: set[str]) -> None:
        super().__init__()
        self.knows = lambda text: bool(known.intersection(tokens(text)))

    def encode_with_status(self, kind: str, items: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows, _ = super().encode_with_status(kind, items)
        return rows, np.array([OK if self.knows(text) else NO_KNOWN_WORD for text in items])


@pytest.mark.parametrize(
    ("tokens", "known", "query", "unknown"),
    [
        (characters, {"红", "色", "dog"}, "红色的dog, cat 和红", ("的", "cat", "和")),
        (characters, {"dog"}, "红色 dog", ("红色",)),
        # A word that a segmenter made; its characters are no words, and nobody asked for them.
        (plain_words, {"红色", "dog"}, "红色 dog 的狗", ("的狗",)),
    ],
)
def test_what_a_model_does_not_read_is_named(tokens, known, query, unknown):
    index = SimpleNamespace(dimension=DIMENSION)
    found = QueryEncoder(Knowing(tokens, known)).embed([Term(text=query)], index, "images")
    assert found.unknown_words == unknown
