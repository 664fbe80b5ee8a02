"""Hides duplicates among hits: what has the same content, or nearly the same embedding."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tf_dpce.errors import UserError, shorten
from tf_dpce.search.embedding.store import IMAGES
from tf_dpce.search.interface import Index, Ranking

CONTENT = "content"

_BLOCK = 1 << 14  # items whose embeddings are in memory at a time


def leaders_by(
    rule: str | float | None, found: Ranking, places: np.ndarray, kind: str, most: int
) -> np.ndarray:
    """Returns for each of N items the number of the best one that it is a duplicate of.

    An item that is no duplicate leads itself.

    Args:
        rule: "content", the least cosine of duplicates, or None if there are none.
        found: what was found.
        places: the items' places there, int64 `[N]`, best first.
        kind: their kind.
        most: number of leaders that are of interest; whatever leads behind these is not looked
            into.

    Returns:
        Numbers of 0..N-1, int64 `[N]`.
    """
    if rule is None:
        return np.arange(len(places))
    if rule == CONTENT:
        return _by_content(found.column("content" if kind == IMAGES else "text", places))
    return _by_cosine(float(rule), found, places, most)


def _by_content(values: pa.ChunkedArray) -> np.ndarray:
    """Items are duplicates if they have the same value, unless it is not known."""
    codes = (
        values.cast("string").combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    )
    leaders, known = np.arange(len(codes)), np.flatnonzero(codes >= 0)
    _, first, inverse = np.unique(codes[known], return_index=True, return_inverse=True)
    leaders[known] = known[first][inverse]
    return leaders


def _by_cosine(cosine: float, found: Ranking, places: np.ndarray, most: int) -> np.ndarray:
    """Items are duplicates if they have at least a cosine with the best one of them."""
    leaders, leading = np.arange(len(places)), np.empty(0, np.int64)
    leads = np.empty((0, 0), np.float32)
    for start in range(0, len(places), _BLOCK):
        vectors = found.contents.vectors(places[start : start + _BLOCK])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = np.arange(len(vectors))
        if start:
            near = vectors @ leads.T >= cosine
            behind = near.any(axis=1)
            leaders[start + rows[behind]] = leading[near[behind].argmax(axis=1)]
            rows = rows[~behind]
        while len(rows) and len(leading) < most:
            # The best item that is left leads, and takes what is near to it.
            best = vectors[rows[:1]]
            leading = np.append(leading, start + rows[0])
            leads = np.vstack([leads, best]) if len(leads) else best
            near = (vectors[rows] @ best[0] >= cosine) | (rows == rows[0])
            leaders[start + rows[near]] = leading[-1]
            rows = rows[~near]
    return leaders


def check_rule(rule: str | float | None, kind: str, index: Index) -> None:
    """Makes sure that duplicates can be hidden by a rule.

    Raises:
        UserError: it is neither "content" nor a cosine in 0..1, or the contents are not known.
    """
    if rule == CONTENT and kind == IMAGES and CONTENT not in index.columns(kind).names:
        message = "the index does not know the contents of files: hide duplicates by a cosine"
        raise UserError("search.duplicates", message)
    if rule not in (None, CONTENT) and not _is_cosine(rule):
        message = f"duplicates are hidden by {CONTENT} or a cosine such as 0.97, not by"
        raise UserError("search.duplicates", f"{message} {shorten(rule, 30)}")


def _is_cosine(rule: str | float) -> bool:
    try:
        return 0 < float(rule) <= 1
    except ValueError:
        return False
