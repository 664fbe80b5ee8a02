"""Several tables of word vectors: what each contributes, and tables that are one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.errors import raises
from tf_dpce.preprocessing.vector_tables import check_tables, read_tables, standardised

WORDS = ("dog", "cat", "cow", "hen")


def table(path: Path, words: str, width: int, seed: int) -> Path:
    vectors = np.random.default_rng(seed).normal(5, 0.01 * seed, (len(words.split()), width))
    np.savez(path, words=np.array(words.split()), vectors=vectors)
    return path


def test_one_table_is_as_its_file_has_it(tmp_path: Path):
    path = table(tmp_path / "one.npz", "cow dog", 3, seed=1)
    found = read_tables([path], WORDS, lowercase=False)
    vectors = np.load(path)["vectors"].astype(np.float32)
    np.testing.assert_array_equal(found.rows[[2, 0]], vectors)
    assert found.widths == (3,) and found.found.tolist() == [[True, False, True, False]]


def test_of_several_each_counts_alike_whatever_its_mean_and_its_scale(tmp_path: Path):
    paths = [
        table(tmp_path / "one.npz", "dog zebra cat cow", 200, seed=1),
        table(tmp_path / "two.npz", "cat hen dog", 100, seed=9),
    ]
    found = read_tables(paths, WORDS, lowercase=False)
    assert found.rows.shape == (4, 300) and found.widths == (200, 100)
    assert found.found.tolist() == [[True, True, True, False], [True, True, False, True]]
    for part, missing in ((found.rows[:, :200], 3), (found.rows[:, 200:], 2)):
        # The mean of the words that a table has is what a word that it lacks gets: zeros.
        assert not part[missing].any()
        own = np.delete(part, missing, axis=0)
        np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-5)
        assert own.std() == pytest.approx(1, rel=1e-5)
    # Differences between words keep their direction.
    vectors = np.load(paths[1])["vectors"]
    one, other = vectors[0] - vectors[1], found.rows[1, 200:] - found.rows[3, 200:]
    assert one @ other == pytest.approx(np.linalg.norm(one) * np.linalg.norm(other), rel=1e-4)


def test_a_table_of_one_word_says_nothing_and_breaks_nothing():
    rows = standardised(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([True, False]))
    assert rows.tolist() == [[0, 0], [0, 0]]


def test_the_same_table_twice_is_a_mistake_however_it_is_named(tmp_path: Path):
    one = table(tmp_path / "one.npz", "dog cat", 3, seed=1)
    other = table(tmp_path / "other.npz", "dog cat", 3, seed=2)
    assert one.stat().st_size == other.stat().st_size
    check_tables([])
    check_tables([one, other])
    (tmp_path / "link.npz").symlink_to(one)
    copy = Path(shutil.copy(one, tmp_path / "copy.npz"))
    for again in (one, tmp_path / "link.npz", copy):
        with raises("vectors.repeated", path=again):
            check_tables([one, other, again])
    with raises("vectors.file", path=tmp_path / "none.npz"):
        check_tables([one, tmp_path / "none.npz"])
