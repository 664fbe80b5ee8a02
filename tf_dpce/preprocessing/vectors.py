"""Word vectors from a `.npz` file, to initialise the word embedding."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError


def vector_words(path: Path) -> set[str]:
    """Returns the words that have a vector; `path` as in `read_vectors`."""
    words, _ = _load(path)
    return set(words.tolist())


def read_vectors(path: Path, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Looks the vectors of words up.

    Args:
        path: a `.npz` file with the arrays `words` (strings `[N]`) and `vectors` (`[N, E]`).
        words: V words, matched exactly.

    Returns:
        float32 `[V, E]`, zeros where a word has no vector, and bool `[V]`, which words have one.

    Raises:
        UserError: the file is missing or is not such a file.

    Example:
        >>> rows, found = read_vectors(path, ["dog", "qzxw"])
        >>> rows.shape, found.tolist()
        ((2, 300), [True, False])
    """
    known, vectors = _load(path)
    places = {word: place for place, word in enumerate(known.tolist())}
    found = np.array([word in places for word in words], dtype=bool)
    rows = np.zeros((len(words), vectors.shape[1]), np.float32)
    rows[found] = vectors[[places[word] for word in words if word in places]]
    return rows, found


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        # NumPy leaves a file open that it opened itself and that turns out to be no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            words, vectors = arrays["words"], arrays["vectors"]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give a file of word vectors") from None
    except (KeyError, ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile):
        raise UserError(
            f"{path} is not a file of word vectors: it needs a .npz with words and vectors"
        ) from None
    _check(path, words, vectors)
    return words, vectors


def _check(path: Path, words: np.ndarray, vectors: np.ndarray) -> None:
    shapes_agree = words.ndim == 1 and vectors.ndim == 2 and len(words) == len(vectors)
    if not shapes_agree or words.dtype.kind != "U" or vectors.dtype.kind != "f":
        raise UserError(
            f"{path} does not hold words [N] and vectors [N, E]: it holds "
            f"{words.dtype.name} {words.shape} and {vectors.dtype.name} {vectors.shape}"
        )
    if not np.isfinite(vectors).all():
        raise UserError(f"{path} holds vectors that are not finite: make it again")
