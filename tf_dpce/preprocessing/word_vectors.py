"""Word vectors from a file, to initialise the word embedding.

The name tells the form: `.npz` is a NumPy archive, `.bin` word2vec's binary form, anything else
text, GloVe's or word2vec's. A further `.gz` behind the latter two is unpacked on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.vector_files import BinaryVectors, Row, VectorFile
from tf_dpce.preprocessing.vector_npz import NpzVectors
from tf_dpce.preprocessing.vector_text import TextVectors


def open_vectors(path: Path) -> VectorFile:
    """Reads as much of a file as its form and width need.

    Raises:
        UserError: the file is missing or is not such a file.
    """
    name = path.name.lower()
    if name.endswith(".npz"):
        return NpzVectors(path)
    return BinaryVectors(path) if name.endswith((".bin", ".bin.gz")) else TextVectors(path)


def look_up(
    file: VectorFile, words: Sequence[str], lowercase: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Looks the vectors of words up, and keeps no others in memory.

    A word has the vector of the file's first equal word. With `lowercase`, a word that has none
    takes that of the first word which equals it once lower-cased.

    Args:
        file: from `open_vectors`.
        words: V words.
        lowercase: whether captions, and so the words, are lower-cased.

    Returns:
        float32 `[V, E]`, zeros where a word has no vector, and bool `[V]`, which words have one.

    Raises:
        UserError: the file is cut short or damaged, or a vector in use is not finite numbers.

    Example:
        >>> rows, found = look_up(open_vectors(path), ["dog", "qzxw"])
        >>> rows.shape, found.tolist()
        ((2, 300), [True, False])
    """
    wanted = set(words)
    exact: dict[str, np.ndarray] = {}
    alike: dict[str, np.ndarray] = {}
    for row in file.rows():
        if row.word in wanted and row.word not in exact:
            exact[row.word] = _vector(file, row)
        elif lowercase and (word := row.word.lower()) in wanted and word not in alike:
            alike[word] = _vector(file, row)
    known = alike | exact
    rows = np.zeros((len(words), file.width), np.float32)
    for place, word in enumerate(words):
        rows[place] = known.get(word, 0)
    return rows, np.array([word in known for word in words], dtype=bool)


def _vector(file: VectorFile, row: Row) -> np.ndarray:
    # What float32 cannot hold becomes infinite, and is refused below.
    with np.errstate(over="ignore"):
        vector = file.vector(row).astype(np.float32)
    if not np.isfinite(vector).all():
        raise UserError(
            f"{file.path} {file.unit} {row.number}: the vector of {row.word!r} is not finite: "
            "make the file again"
        )
    return vector
