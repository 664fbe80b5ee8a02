"""Queries: a sum of texts, images and items of the index, such as `"dog" - "ball" + image.jpg`.

    query   term {("+" | "-") term}
    term    [number "*"] ("text in quotation marks" | image.jpg | "my image.jpg")

A text without quotation marks is no such sum, whatever signs are in it: `black-and-white dog` and
`a dog - on the beach` are plain texts. What is named like an image is the path of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_dpce.datasets.names import is_image
from tf_dpce.errors import UserError, shorten
from tf_dpce.search.embedding.store import IMAGES, TEXTS

_MOST_TERMS = 16
_LARGEST_WEIGHT = 1000.0
# Of embeddings in float32 what is left of opposite ones is rounding.
_CANCELLED = 1e-3
_TYPOGRAPHIC = str.maketrans("“”„", '"""')  # phones write them
_TERM = re.compile(
    # No two runs that the same signs could belong to, so that a long text is read once.
    r"""\s*(?:(?P<sign>[+-])\s*)?
    (?:(?P<weight>[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})\s*\*\s*)?
    (?:"(?P<quoted>(?:[^"]|"")*)"|(?P<bare>[^\s"*+-][^\s"]*))
    \s*""",
    re.VERBOSE,
)
# A quotation mark beside a sign: whoever writes it means a sum.
_MEANT = re.compile(r'"\s*[+-]|[+*-]\s*"')


@dataclass(frozen=True)
class Term:
    """A part of a query: one of a text, an image and an item of the index.

    Attributes:
        weight: what its embedding is multiplied by; a negative one asks for what is unlike it.
        text: a text.
        image: the path or the bytes of the file of an image.
        id: the id of an item of the kind that is searched.

    Example:
        >>> Term(text="a dog").kind("images"), Term(-1.0, image="ball.jpg").kind("images")
        ('texts', 'images')
    """

    weight: float = 1.0
    text: str | None = None
    image: str | Path | bytes | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if [self.text, self.image, self.id].count(None) != 2:
            raise TypeError(f"One of text, image and id is expected. Received: {self}")

    def kind(self, searched: str) -> str:
        """Returns the kind of its embedding, "images" or "texts".

        Args:
            searched: the kind that is searched, which is that of an item.
        """
        if self.id is not None:
            return searched
        return IMAGES if self.text is None else TEXTS

    @property
    def name(self) -> str:
        """What a message calls it."""
        if self.text is not None:
            return f"the text '{shorten(self.text)}'"
        if self.id is not None:
            return f"the item '{shorten(self.id)}'"
        return "the image" if isinstance(self.image, bytes) else str(self.image)


def parse_query(query: str) -> list[Term]:
    """Reads a query as a person types it: a plain text, the path of an image, or a sum of such.

    Files are not opened.

    Args:
        query: what was typed.

    Returns:
        One term or more.

    Raises:
        UserError: it has quotation marks beside signs, but is no sum, or has too many terms.

    Example:
        >>> parse_query("a dog - on the beach")
        [Term(weight=1.0, text='a dog - on the beach', image=None, id=None)]
        >>> [(term.weight, term.text, term.image) for term in parse_query('2 * "dog" - a.jpg')]
        [(2.0, 'dog', None), (-1.0, None, 'a.jpg')]
    """
    text, start, terms = query.translate(_TYPOGRAPHIC), 0, []
    while start < len(text):
        found = _TERM.match(text, start)
        term = found and _term(found)
        if term is None or (terms and not found["sign"]):
            return _no_sum(query, text, start)
        terms.append(term)
        if len(terms) > _MOST_TERMS:
            message = f"the query has too many terms: use at most {_MOST_TERMS}"
            raise UserError("search.query", message)
        start = found.end()
    return terms or [Term(text=query)]


def combine(terms: Sequence[Term], embeddings: np.ndarray) -> np.ndarray:
    """Returns the weighted sum of the embeddings of terms, of unit length.

    Args:
        terms: N of them.
        embeddings: float `[N, D]`, unit vectors.

    Returns:
        Float32 `[D]`.

    Raises:
        UserError: a weight is not finite or too large, or the terms cancel each other.
    """
    weights = [term.weight for term in terms]
    for weight in weights:
        if not abs(weight) <= _LARGEST_WEIGHT:  # nor is that true of a NaN
            message = f"a weight of the query is {weight:g}: use at most {_LARGEST_WEIGHT:g}"
            raise UserError("search.query", message)
    if weights == [1.0]:
        return embeddings[0].astype(np.float32)
    total = np.asarray(weights) @ embeddings.astype(np.float64)
    length = np.linalg.norm(total)
    if length <= _CANCELLED * np.abs(weights).sum():
        message = "the terms of the query cancel each other: change a weight, or leave one out"
        raise UserError("search.query", message)
    return (total / length).astype(np.float32)


def combined_kind(terms: Sequence[Term], searched: str) -> str:
    """Returns the kind of a query: of texts if its texts weigh as much as the rest, else of images.

    By this an index with a querybank decides whether it corrects the query for hubs.
    """
    sides = {IMAGES: 0.0, TEXTS: 0.0}
    for term in terms:
        sides[term.kind(searched)] += abs(term.weight)
    return TEXTS if sides[TEXTS] >= sides[IMAGES] else IMAGES


def _term(found: re.Match[str]) -> Term | None:
    content = found["bare"]
    if content is None:
        content = found["quoted"].replace('""', '"')
    elif not is_image(content):
        return None
    weight = float(found["weight"] or 1) * (-1 if found["sign"] == "-" else 1)
    return Term(weight, image=content) if is_image(content) else Term(weight, text=content)


def _no_sum(query: str, text: str, start: int) -> list[Term]:
    if not _MEANT.search(text):
        return [Term(text=query)]
    message = f"at character {start + 1} is '{shorten(text[start:], 30)}'"
    raise UserError(
        "search.query",
        f"the query cannot be read: {message}, but there must be a term such as "
        '+ "dog", - 2 * "ball" or + image.jpg, or no quotation mark',
    )
