"""Word vectors: exact look-up, and files that are something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.vectors import read_vectors, vector_words

WORDS = np.array(["dog", "Dog", "naïve", "犬"])
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.savez(tmp_path / "vectors.npz", words=WORDS, vectors=VECTORS)
    return tmp_path / "vectors.npz"


def test_rows_come_in_the_order_asked_for_and_unknown_words_are_zero(path: Path):
    rows, found = read_vectors(path, ["犬", "cat", "dog", "DOG", "naïve"])
    assert found.tolist() == [True, False, True, False, True]
    expected = [[9, 10, 11], [0, 0, 0], [0, 1, 2], [0, 0, 0], [6, 7, 8]]
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.float32 and found.dtype == bool


def test_a_word_asked_for_twice_is_found_twice(path: Path):
    rows, found = read_vectors(path, ["dog", "dog"])
    assert found.all() and (rows[0] == rows[1]).all()


@pytest.mark.parametrize("words", [[], ["cat", "cow"]])
def test_nothing_asked_or_nothing_found(path: Path, words: list[str]):
    rows, found = read_vectors(path, words)
    assert rows.shape == (len(words), 3) and not rows.any()
    assert found.shape == (len(words),) and not found.any()


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_every_float_becomes_float32(tmp_path: Path, kind: type):
    np.savez(tmp_path / "v.npz", words=WORDS, vectors=VECTORS.astype(kind))
    rows, _ = read_vectors(tmp_path / "v.npz", WORDS.tolist())
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, VECTORS)


def test_the_words_of_a_file(path: Path):
    assert vector_words(path) == {"dog", "Dog", "naïve", "犬"}


BAD = {
    "no such array": (dict(words=WORDS, rows=VECTORS), "is not a file of word vectors"),
    "pickled": (dict(words=WORDS.astype(object), vectors=VECTORS), "is not a file of word vectors"),
    "fewer words": (dict(words=WORDS[:3], vectors=VECTORS), r"it holds .*\(3,\).*\(4, 3\)"),
    "flat": (dict(words=WORDS, vectors=VECTORS[:, 0]), r"it holds .*\(4,\) and float32 \(4,\)"),
    "numbers": (dict(words=np.arange(4), vectors=VECTORS), "it holds int64"),
    "integers": (dict(words=WORDS, vectors=VECTORS.astype(int)), "it holds .* int64"),
    "not finite": (dict(words=WORDS, vectors=VECTORS + np.float32(np.inf)), "not finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_something_else_is_one_clear_line(tmp_path: Path, name: str):
    arrays, message = BAD[name]
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        read_vectors(tmp_path / "v.npz", ["dog"])
    assert "v.npz" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "bare array", "folder"])
def test_a_damaged_file_is_one_clear_line(path: Path, damage: str):
    contents = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "bare array":
        with path.open("wb") as stream:
            np.save(stream, VECTORS)
    else:
        path.write_bytes({"empty": b"", "text": b"dog 0.1", "truncated": contents[:200]}[damage])
    with pytest.raises(UserError, match="vectors.npz is not a file of word vectors"):
        read_vectors(path, ["dog"])


def test_a_flipped_byte_is_noticed(path: Path):
    contents = bytearray(path.read_bytes())
    place = contents.index(VECTORS.tobytes())
    contents[place + 5] ^= 1
    path.write_bytes(contents)
    with pytest.raises(UserError, match="vectors.npz is not a file of word vectors"):
        read_vectors(path, ["dog"])


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="missing.npz does not exist"):
        vector_words(tmp_path / "missing.npz")


def test_the_real_vectors_know_common_words(glove_vectors: Path):
    rows, found = read_vectors(glove_vectors, ["dog", "cat", "beach", "qzxwv"])
    assert rows.shape == (4, 300) and found.tolist() == [True, True, True, False]
    dog, cat, beach = (row / np.linalg.norm(row) for row in rows[:3])
    assert dog @ cat > dog @ beach
