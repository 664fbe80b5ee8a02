"""Embeds queries, and finds the words in them that a model does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.cut import cut
from tf_dpce.export.encoder import Encoder
from tf_dpce.preprocessing.file_kinds import explain
from tf_dpce.preprocessing.status import NO_KNOWN_WORD, OK
from tf_dpce.preprocessing.words import plain_characters, plain_words
from tf_dpce.search.embedding.store import TEXTS
from tf_dpce.search.interface import Index
from tf_dpce.search.queries.query import Term, combine, combined_kind

_ASKED_WORDS = 256  # many times what a model reads, and a fraction of a second
_REMEMBERED_WORDS = 100_000
# A Chinese character that hardly any caption has: a model that knows a word with it behind reads
# characters, and one that reads words or their pieces knows no such word.
_RARE = "\U0002a6d6"


@dataclass(frozen=True)
class EmbeddedQuery:
    """A query as an index is asked it.

    Attributes:
        embedding: float32 `[D]`, of unit length.
        kind: "images" or "texts".
        unknown_words: see `Hit`.
        inferred_words: see `Hit`.
        own: ids of its own items, which are no hits.
    """

    embedding: np.ndarray
    kind: str
    unknown_words: tuple[str, ...]
    inferred_words: tuple[str, ...]
    own: frozenset[str]


class Known(Enum):
    """How a model knows a word."""

    UNKNOWN = auto()
    INFERRED = auto()
    TRAINED = auto()


class QueryEncoder:
    """Embeds queries; many threads may ask it at once.

    Args:
        encoder: the model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._judged: dict[str, Known] = {}

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
        embeddings = np.empty((len(terms), index.dimension), np.float32)
        by_kind: dict[str, list[int]] = {}
        for row, term in enumerate(terms):
            if term.id is not None:
                (vector,) = index.vectors(kind, [term.id])
                embeddings[row] = vector / np.linalg.norm(vector)
            else:
                by_kind.setdefault(term.kind(kind), []).append(row)
        for of, rows in by_kind.items():
            vectors = self._encode(of, [terms[row] for row in rows])
            if vectors.shape[1] > index.dimension:
                vectors = cut(vectors, index.dimension)
            embeddings[rows] = vectors
        texts = [term.text for term in terms if term.text is not None]
        words = self._judge_words(texts)
        return EmbeddedQuery(
            embedding=combine(terms, embeddings),
            kind=combined_kind(terms, kind),
            unknown_words=tuple(word for word in words if words[word] is Known.UNKNOWN),
            inferred_words=tuple(word for word in words if words[word] is Known.INFERRED),
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

    def _judge_words(self, texts: Sequence[str]) -> dict[str, Known]:
        """Asks the model for words one by one, or for characters if these are what it reads."""
        words = [word for text in texts for word in plain_words(text)]
        parts = [plain_characters(word) for word in words]
        rare = {word + _RARE for word, of in zip(words, parts, strict=True) if len(of) > 1}
        if {*self._judge(list(rare)).values()} - {Known.UNKNOWN}:
            words = [part for of in parts for part in of]
        return self._judge(words)

    def _judge(self, words: Sequence[str]) -> dict[str, Known]:
        """Asks the model for tokens: neither an export nor a server lists its own."""
        words, judged = list(dict.fromkeys(words))[:_ASKED_WORDS], self._judged
        new = [word for word in words if word not in judged]
        if new:
            answers = dict(zip(new, self._ask(new), strict=True))
            # Another dictionary, because other threads are reading this one.
            judged = judged | answers
            self._judged = judged if len(judged) <= _REMEMBERED_WORDS else answers
        return {word: judged[word] for word in words}

    def _ask(self, words: Sequence[str]) -> Iterator[Known]:
        _, statuses = self._encoder.encode_with_status(TEXTS, words)
        counts = self._encoder.count_inferred(words)
        for status, count in zip(statuses.tolist(), counts.tolist(), strict=True):
            if status == NO_KNOWN_WORD:
                yield Known.UNKNOWN
            else:
                yield Known.INFERRED if count else Known.TRAINED


def read_query_image(path: str | Path) -> bytes:
    """Returns the bytes of an image that is a query.

    Raises:
        UserError: the file cannot be read.
    """
    # Imported here, because a search by a text needs no Pillow.
    from tf_dpce.search.embedding.inputs import Refusal, read_image

    contents = read_image(str(path))
    if isinstance(contents, Refusal):
        raise UserError("search.query", f"{path} {contents.reason}", path)
    return contents


def _content(term: Term) -> str | bytes:
    if term.text is not None:
        return term.text
    return term.image if isinstance(term.image, bytes) else read_query_image(term.image)
