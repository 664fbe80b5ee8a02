"""Several tables of word vectors side by side, such as GloVe's and those of a sentence encoder."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.word_vectors import check_vectors, look_up_vectors


@dataclass(frozen=True)
class WordVectors:
    """Vectors of the words of a vocabulary, from one table or from several side by side.

    Attributes:
        rows: float32 `[V, E]`, E being the widths of all tables together. A single table's are as
            the file has them. Of several, each table is centred and scaled: the mean of its
            vectors of the vocabulary is subtracted, and all are divided by the standard deviation
            of all their numbers. A word that a table lacks has zeros there, which are that mean.
            The vectors of further words take the same means and deviations and stand behind.
        found: bool `[tables, V]`, which words each table has.
        widths: the width of each table.
    """

    rows: np.ndarray
    found: np.ndarray
    widths: tuple[int, ...]


def check_tables(paths: Sequence[Path]) -> None:
    """Makes sure, before any work, that there are these files and that no two are the same.

    Raises:
        UserError: one of these.
    """
    for path in paths:
        check_vectors(path)
    for one, other in combinations(paths, 2):
        if filecmp.cmp(one, other, shallow=False):
            message = f"{other} is the same table of word vectors as {one}: give it once"
            raise UserError("vectors.repeated", message, other)


def read_tables(
    paths: Sequence[Path], words: Sequence[str], lowercase: bool, further: Sequence[str] = ()
) -> WordVectors:
    """Reads the vectors of a vocabulary from one table or several.

    Args:
        paths: files of word vectors, at least one.
        words: V words.
        lowercase: whether captions, and so the words, are lower-cased; see `look_up_vectors`.
        further: X words that are not in the vocabulary; there are V + X rows then.

    Raises:
        UserError: a file cannot be used, or has no word of the vocabulary.

    Example:
        >>> read_tables([Path("glove.txt"), Path("glove.txt")], ["dog", "cat"], False).widths
        (300, 300)
    """
    tables = [look_up_vectors(path, [*words, *further], lowercase) for path in paths]
    for path, (_, found) in zip(paths, tables, strict=True):
        if not found[: len(words)].any():
            message = f"{path} has no vector for any word of the vocabulary: give another file"
            raise UserError("vectors.words", message, path)
    parts = [rows for rows, _ in tables]
    if len(tables) > 1:
        parts = [standardised(*table, of=len(words)) for table in tables]
    widths = tuple(part.shape[1] for part in parts)
    return WordVectors(np.hstack(parts), np.stack([found for _, found in tables]), widths)


def standardised(rows: np.ndarray, found: np.ndarray, of: int | None = None) -> np.ndarray:
    """Returns vectors centred on 0 and scaled to numbers of variance 1; the others are zeros.

    Args:
        rows: float `[V, E]`.
        found: bool `[V]`, the rows that are vectors.
        of: how many rows, from the first, give mean and variance; all by default.

    Example:
        >>> standardised(np.array([[3.0], [0.0], [1.0]]), np.array([True, False, True])).ravel()
        array([ 1.,  0., -1.], dtype=float32)
    """
    of = len(rows) if of is None else of
    own = rows[found].astype(np.float64)
    measured = own[: np.count_nonzero(found[:of])]
    own -= measured.mean(axis=0)
    # One word, or words that are all alike, have no spread to divide by.
    own /= measured.std() or 1.0
    scaled = np.zeros(rows.shape, np.float32)
    scaled[found] = own
    return scaled
