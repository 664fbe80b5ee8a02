"""Word vectors: look-up in each form of file, and files that are something else."""

from __future__ import annotations

import gzip
import io
import logging
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.errors import raises
from tf_dpce.preprocessing.word_vectors import look_up_vectors as read

WORDS = np.array(["dog", "Dog", "naïve", "犬"])
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


# --- a writer for each form -----------------------------------------------------------------------


def binary(words: list[str], vectors: np.ndarray, end: bytes = b"") -> bytes:
    """word2vec's binary form, as GoogleNews has it; with line feeds as the program writes it."""
    rows = (
        word.encode() + b" " + row.astype("<f4").tobytes() + end
        for word, row in zip(words, vectors, strict=True)
    )
    return f"{len(words)} {vectors.shape[1]}\n".encode() + b"".join(rows)


def text(words: list[str], vectors: np.ndarray, end: str = "") -> str:
    """GloVe's text."""
    numbers = (" ".join(map(str, row)) for row in vectors.tolist())
    return "".join(f"{word} {row}{end}\n" for word, row in zip(words, numbers, strict=True))


def word2vec_text(words: list[str], vectors: np.ndarray) -> str:
    # The original program leaves a space at the end of a line.
    return f"{len(words)} {vectors.shape[1]}\n{text(words, vectors, end=' ')}"


Write = Callable[[list[str], np.ndarray], bytes]
FORMS: dict[str, Write] = {
    "GoogleNews.bin": binary,
    "word2vec.bin": lambda *rows: binary(*rows, end=b"\n"),
    "word2vec.txt": lambda *rows: word2vec_text(*rows).encode(),
    "glove.txt": lambda *rows: text(*rows).encode(),
    "glove.vec": lambda *rows: text(*rows, end="\r").encode(),
    "packed.bin.gz": lambda *rows: gzip.compress(binary(*rows)),
    "packed.txt.gz": lambda *rows: gzip.compress(text(*rows).encode(), 1),
}


@pytest.fixture(params=[*FORMS, "vectors.npz"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Writes words and their vectors in one of the forms."""

    def write(words: list[str], vectors: np.ndarray) -> Path:
        path = tmp_path / request.param
        if path.suffix == ".npz":
            np.savez(path, words=np.array(words), vectors=vectors)
        else:
            path.write_bytes(FORMS[request.param](words, vectors))
        return path

    return write


# --- what is found --------------------------------------------------------------------------------


def test_rows_come_in_the_order_asked_for_and_unknown_words_are_zero(write: Callable[..., Path]):
    # Of a word that a file repeats the first counts.
    path = write([*WORDS, "dog"], np.concatenate([VECTORS, VECTORS[-1:]]))
    rows, found = read(path, ["犬", "cat", "dog", "DOG", "naïve", "dog"])
    assert found.tolist() == [True, False, True, False, True, True]
    expected = [[9, 10, 11], [0, 0, 0], [0, 1, 2], [0, 0, 0], [6, 7, 8], [0, 1, 2]]
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.float32 and found.dtype == bool
    assert [array.shape for array in read(path, [])] == [(0, 3), (0,)]
    assert not read(path, ["cat", "cow"])[0].any()


def test_a_lower_cased_word_falls_back_on_the_first_that_is_equal_once_lower_cased(
    write: Callable[..., Path],
):
    path = write(["PARIS", "Paris", "Dog", "dog", "ÉTÉ"], np.arange(5.0).reshape(5, 1))
    words = ["paris", "dog", "été", "cat"]
    rows, found = read(path, words, lowercase=True)
    # "PARIS" stands first; "dog" has a vector of its own, though "Dog" stands before it.
    assert rows.ravel().tolist() == [0, 3, 4, 0]
    assert found.tolist() == [True, True, True, False]
    _, found = read(path, words)
    assert found.tolist() == [False, True, False, False], "elsewhere case matters"


def test_words_of_text_may_hold_spaces(tmp_path: Path):
    # Some of GloVe 840B do: the width tells the numbers from the word.
    for first in ("at name@domain.com", ". . .", "dog"):
        (tmp_path / "glove.txt").write_text(text([first, ". . . .", "99"], VECTORS[:3]))
        rows, found = read(tmp_path / "glove.txt", ["99", first, ". . . ."])
        assert found.all() and rows.tolist() == VECTORS[[2, 0, 1]].tolist()


def test_a_word_that_is_not_utf8_is_passed_over(tmp_path: Path):
    for name, contents in (
        ("v.bin", binary(["dog", "é"], VECTORS[:2])),
        ("v.txt", b"dog 0 1 2\n\xc3\xa9 3 4 5\n"),
    ):
        (tmp_path / name).write_bytes(contents.replace("é".encode(), b"\xc3"))
        words = ["dog", "é", "\ufffd"]
        assert read(tmp_path / name, words, lowercase=True)[1].tolist() == [1, 0, 0]


def test_what_nobody_asked_for_need_not_be_a_number_and_an_empty_line_is_no_row(tmp_path: Path):
    # Reading a number costs a hundred times what passing over it does.
    (tmp_path / "v.txt").write_text("\n3 1\ndog 1\n\ncow nan\ncat 2\n\n")
    assert read(tmp_path / "v.txt", ["cat"])[0].tolist() == [[2]]


@pytest.mark.parametrize("name", ["word2vec.bin", "packed.txt.gz"])
def test_memory_holds_the_words_asked_for_and_not_the_file(tmp_path: Path, name: str):
    # 2,500 rows of 400 numbers: 4 MB of floats, more as text.
    vectors = np.random.default_rng(0).normal(size=(2_500, 400)).astype(np.float32)
    words = [f"W{number}" for number in range(2_500)]
    (tmp_path / name).write_bytes(FORMS[name](words, vectors))
    tracemalloc.start()
    try:
        rows, _ = read(tmp_path / name, ["w0", "w2499"], lowercase=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(rows, vectors[[0, 2_499]])
    # Two megabytes, and as much for a file of any length.
    assert peak < 2**21


# --- mistakes -------------------------------------------------------------------------------------


# Three rows of two numbers; a row of "dog" takes 4 + 8 bytes, the first line 4.
ROWS = binary(["dog", "cat", "cow"], VECTORS[:3, :2])
# The name of a file, its contents, the code of its mistake, and its line or row.
MISTAKES = [
    ("empty.bin", b"", "vectors.form", None),
    ("text.bin", b"dog 0.1 0.2\n", "vectors.form", None),
    ("headed.bin", b"2 2\ndog 0.12345678 0.12345678\ncat 1 2\n", "vectors.damaged", None),
    ("cut.bin", ROWS[: 4 + 12 + 7], "vectors.damaged", 2),
    ("more.bin", ROWS + b"\ndog", "vectors.damaged", None),
    ("no-width.bin", b"3 0\n", "vectors.form", None),
    ("wide.bin", b"3 700000\n", "vectors.form", None),
    ("not-finite.bin", binary(["dog"], VECTORS[:1] + np.inf), "vectors.not_finite", 1),
    ("empty.txt", b"", "vectors.line", 1),
    ("prose.txt", b"dog and cat\n", "vectors.line", 1),
    ("binary.txt", ROWS, "vectors.damaged", None),
    ("one-line.txt", b"x" * 2_000_000, "vectors.line", 1),
    ("narrow.txt", b"cat 1 2\ndog 1\n", "vectors.line", 2),
    ("wider.txt", b"cat 1 2\n\ndog 1 2 3\n", "vectors.line", 3),
    ("wider-than-said.txt", b"1 2\ndog 1 2 3\n", "vectors.line", 2),
    ("no-number.txt", b"cat 1 2\ndog 1 x\n", "vectors.line", 2),
    ("cut.txt", b"3 2\ndog 1 2\ncat 1 2\n", "vectors.damaged", None),
    ("more.txt", b"1 2\ndog 1 2\ncat 1 2\n", "vectors.damaged", None),
    ("nan.txt", b"cat 1 2\ndog nan 2\n", "vectors.not_finite", 2),
    ("far.txt", b"dog 1e40 2\n", "vectors.not_finite", 1),
    ("plain.txt.gz", b"dog 1 2\n", "vectors.damaged", None),
    ("cut.txt.gz", gzip.compress(b"dog 1 2\n" * 9)[:-9], "vectors.damaged", None),
]


def test_a_mistake_names_the_file_and_the_line_or_row(tmp_path: Path):
    for name, contents, code, line in MISTAKES:
        path = tmp_path / name
        path.write_bytes(contents)
        with raises(code, path) as caught:
            read(path, ["dog"])
        assert caught.value.line == line, name
        assert str(path) in str(caught.value)


def test_a_folder_or_nothing_is_no_file_of_vectors(tmp_path: Path):
    (tmp_path / "v.bin").mkdir()
    for name in ("v.bin", "missing.npz", "missing.txt"):
        with raises("vectors.file", tmp_path / name):
            read(tmp_path / name, [])


def test_a_last_line_without_its_end_may_be_whole_and_is_doubted(tmp_path: Path, caplog):
    # Cut to 0.8 it would look the same; with a line end it is whole.
    with caplog.at_level(logging.WARNING, "tf_dpce"):
        for end, warnings in ((b"\n", 0), (b"", 1)):
            (tmp_path / "v.txt").write_bytes(b"1 2\ndog 0.1 0.823" + end)
            assert read(tmp_path / "v.txt", ["dog"])[1].all()
            assert len(caplog.records) == warnings
    assert str(tmp_path / "v.txt") in caplog.text


def test_an_archive_of_something_else_or_a_damaged_one(tmp_path: Path):
    path = tmp_path / "v.npz"
    for arrays, code in (
        (dict(words=WORDS, rows=VECTORS), "vectors.form"),
        (dict(words=WORDS[:3], vectors=VECTORS), "vectors.form"),
        (dict(words=WORDS, vectors=VECTORS[:, 0]), "vectors.form"),
        (dict(words=WORDS, vectors=VECTORS[:, :0]), "vectors.form"),
        (dict(words=np.arange(4), vectors=VECTORS), "vectors.form"),
        (dict(words=WORDS, vectors=VECTORS.astype(int)), "vectors.form"),
        (dict(words=WORDS.astype(object), vectors=VECTORS), "vectors.damaged"),
        (dict(words=WORDS, vectors=VECTORS + np.float32(np.inf)), "vectors.not_finite"),
    ):
        np.savez(path, **arrays)
        with raises(code, path):
            read(path, ["dog"])
    np.savez(path, words=WORDS, vectors=VECTORS.astype(np.float16))
    np.testing.assert_array_equal(read(path, WORDS.tolist())[0], VECTORS)
    np.savez(path, words=WORDS, vectors=VECTORS)
    whole, array = path.read_bytes(), io.BytesIO()
    flipped = bytearray(whole)
    flipped[whole.index(VECTORS.tobytes()) + 5] ^= 1
    np.save(array, VECTORS)
    # The first bit of the flags of each entry, in its header and in the directory, locks it.
    locked = whole.replace(b"PK\x03\x04\x2d\x00\x00", b"PK\x03\x04\x2d\x00\x01")
    locked = re.sub(rb"(PK\x01\x02.{4})\x00", b"\\g<1>\x01", locked, flags=re.DOTALL)
    for contents in (b"", b"dog 0.1", whole[:200], bytes(flipped), locked, array.getvalue()):
        path.write_bytes(contents)
        with raises("vectors.damaged", path):
            read(path, ["dog"])


def test_the_real_vectors_know_common_words(glove_vectors: Path):
    rows, found = read(glove_vectors, ["dog", "cat", "beach", "qzxwv"])
    assert rows.shape == (4, 300) and found.tolist() == [True, True, True, False]
    dog, cat, beach = (row / np.linalg.norm(row) for row in rows[:3])
    assert dog @ cat > dog @ beach
