"""Embeds queries, and finds the words in them that a model does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.file_kinds import explain
from tf_dpce.preprocessing.status import NO_KNOWN_WORD, OK
from tf_dpce.preprocessing.words import plain_words
from tf_dpce.search.embedding.inputs import Refusal, read_image
from tf_dpce.search.embedding.store import TEXTS
from tf_dpce.search.queries.query import Term, combine, combined_kind

if TYPE_CHECKING:
    from tf_dpce.export.encoder import Encoder
    from tf_dpce.search.interface import Index

_ASKED_WORDS = 256  # many times what a model reads, and a fraction of a second
_REMEMBERED_WORDS = 100_000


@dataclass(frozen=True)
class EmbeddedQuery:
    """A query as an index is asked it.

    Attributes:
        embedding: float32 `[D]`, of unit length.
        kind: "images" or "texts".
        unknown_words: see `Hit`.
        own: ids of its own items, which are no hits.
    """

    embedding: np.ndarray
    kind: str
    unknown_words: tuple[str, ...]
    own: frozenset[str]


class QueryEncoder:
    """Embeds queries; many threads may ask it at once.

    Args:
        encoder: the model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, bool] = {}

    def embed(self, terms: Sequence[Term], index: Index, kind: str) -> EmbeddedQuery:
        """Embeds a query.

        Args:
            terms: one or more.
            index: the index that is searched.
            kind: the kind that is searched.

        Raises:
            UserError: a term cannot be embedded, the index has no such item, or the terms cancel
                each other.
        """
        embeddings = np.empty((len(terms), self._encoder.dimension), np.float32)
        by_kind: dict[str, list[int]] = {}
        for row, term in enumerate(terms):
            if term.id is not None:
                (vector,) = index.vectors(kind, [term.id])
                embeddings[row] = vector / np.linalg.norm(vector)
            else:
                by_kind.setdefault(term.kind(kind), []).append(row)
        for of, rows in by_kind.items():
            embeddings[rows] = self._encode(of, [terms[row] for row in rows])
        texts = [term.text for term in terms if term.text is not None]
        return EmbeddedQuery(
            embedding=combine(terms, embeddings),
            kind=combined_kind(terms, kind),
            unknown_words=self._unknown_words(texts),
            own=frozenset(term.id for term in terms if term.id is not None),
        )

    def _encode(self, kind: str, terms: Sequence[Term]) -> np.ndarray:
        contents = [_content(term) for term in terms]
        vectors, statuses = self._encoder.encode_with_status(kind, contents)
        for term, content, status in zip(terms, contents, statuses.tolist(), strict=True):
            if status != OK:
                reason = explain(status, content)
                raise UserError("search.query", f"{term.name} cannot be used: {reason}")
        return vectors

    def _unknown_words(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Asks the model for words one by one: neither an export nor a server lists its own."""
        words = list(dict.fromkeys(word for text in texts for word in plain_words(text)))
        words, known = words[:_ASKED_WORDS], self._known
        new = [word for word in words if word not in known]
        if new:
            _, statuses = self._encoder.encode_with_status(TEXTS, new)
            answers = dict(zip(new, (statuses != NO_KNOWN_WORD).tolist(), strict=True))
            # Another dictionary, because other threads are reading this one.
            known = known | answers
            self._known = known if len(known) <= _REMEMBERED_WORDS else answers
        return tuple(word for word in words if not known[word])


def read_query_image(path: str | Path) -> bytes:
    """Returns the bytes of an image that is a query.

    Raises:
        UserError: the file cannot be read.
    """
    contents = read_image(str(path))
    if isinstance(contents, Refusal):
        raise UserError("search.query", f"{path} {contents.reason}", path)
    return contents


def _content(term: Term) -> str | bytes:
    if term.text is not None:
        return term.text
    return term.image if isinstance(term.image, bytes) else read_query_image(term.image)
