"""The example that makes a table of word vectors with any encoder of whole sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.encode_words import BATCH, main, word_table
from tf_dpce.preprocessing.vector_tables import read_tables

ENCODER = """
def encode(words):
    assert isinstance(words, list)
    return [[len(word), ord(word[0])] for word in words]
"""


def test_every_word_of_a_vocabulary_gets_what_the_module_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    words = [f"{chr(97 + number % 26)}{'x' * number}" for number in range(BATCH + 3)]
    (tmp_path / "vocabulary.txt").write_text("".join(f"{word}\n" for word in words))
    (tmp_path / "encoder_of_lengths.py").write_text(ENCODER)
    monkeypatch.syspath_prepend(tmp_path)
    main(tmp_path / "vocabulary.txt", "encoder_of_lengths", tmp_path / "words.npz")
    assert f"{BATCH + 3} words, 2 numbers" in capsys.readouterr().out
    found = read_tables([tmp_path / "words.npz"], words, lowercase=True)
    assert found.found.all()
    expected = [[len(word), ord(word[0])] for word in words]
    np.testing.assert_array_equal(found.rows, expected)


def test_what_is_not_a_vector_for_each_word_is_named():
    for vectors in ([1.0, 2.0], [[1.0]], [[[1.0], [2.0]]], [[1.0], [np.nan]]):
        with pytest.raises(SystemExit, match="encode returned"):
            word_table(["dog", "cat"], lambda words, vectors=vectors: vectors)
    widths = iter((2, 3))
    with pytest.raises(SystemExit, match="encode returned"):
        word_table(["dog"] * (BATCH + 1), lambda words: np.ones((len(words), next(widths))))
