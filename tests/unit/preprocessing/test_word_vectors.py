"""Word vectors: look-up in each form of file, and files that are something else."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.errors import raises
from tf_dpce.preprocessing.word_vectors import WordVectors

WORDS = np.array(["dog", "Dog", "naïve", "犬"])
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def read(path: Path, words: list[str], lowercase: bool = False) -> tuple[np.ndarray, np.ndarray]:
    return WordVectors(path).look_up(words, lowercase)


# --- a writer for each form -----------------------------------------------------------------------


def write_npz(
    path: Path, words: list[str], vectors: np.ndarray, save: Callable[..., None] = np.savez
) -> None:
    save(path, words=np.array(words), vectors=vectors)


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


def write_text(path: Path, words: list[str], vectors: np.ndarray, end: str = "") -> None:
    path.write_text(text(words, vectors, end), encoding="utf-8")


def write_word2vec_text(path: Path, words: list[str], vectors: np.ndarray) -> None:
    # The original program leaves a space at the end of a line.
    rows = text(words, vectors, end=" ")
    path.write_text(f"{len(words)} {vectors.shape[1]}\n{rows}", encoding="utf-8")


Writer = Callable[[Path, list[str], np.ndarray], None]
FORMS: dict[str, Writer] = {
    "vectors.npz": write_npz,
    "packed.npz": lambda path, *rows: write_npz(path, *rows, save=np.savez_compressed),
    "GoogleNews.bin": lambda path, *rows: path.write_bytes(binary(*rows)),
    "word2vec.bin": lambda path, *rows: path.write_bytes(binary(*rows, end=b"\n")),
    "word2vec.txt": write_word2vec_text,
    "glove.txt": write_text,
    "glove.vec": lambda path, *rows: write_text(path, *rows, end="\r"),
    "packed.bin.gz": lambda path, *rows: path.write_bytes(gzip.compress(binary(*rows))),
    "packed.txt.gz": lambda path, *rows: path.write_bytes(gzip.compress(text(*rows).encode(), 1)),
}


@pytest.fixture(params=FORMS)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Writes words and their vectors in one of the forms."""

    def write(words: list[str], vectors: np.ndarray) -> Path:
        FORMS[request.param](tmp_path / request.param, words, vectors)
        return tmp_path / request.param

    return write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_npz(tmp_path / "vectors.npz", WORDS, VECTORS)
    return tmp_path / "vectors.npz"


# --- what is found --------------------------------------------------------------------------------


def test_rows_come_in_the_order_asked_for_and_unknown_words_are_zero(write: Callable[..., Path]):
    rows, found = read(write(WORDS, VECTORS), ["犬", "cat", "dog", "DOG", "naïve"])
    assert found.tolist() == [True, False, True, False, True]
    expected = [[9, 10, 11], [0, 0, 0], [0, 1, 2], [0, 0, 0], [6, 7, 8]]
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.float32 and found.dtype == bool


def test_a_word_asked_for_twice_is_found_twice(path: Path):
    rows, found = read(path, ["dog", "dog"])
    assert found.all() and (rows[0] == rows[1]).all()


def test_of_a_word_that_a_file_repeats_the_first_counts(write: Callable[..., Path]):
    rows, _ = read(write(["dog", "cat", "dog"], VECTORS[:3]), ["dog"], lowercase=True)
    assert rows.tolist() == [[0, 1, 2]]


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


@pytest.mark.parametrize("words", [[], ["cat", "cow"]])
def test_nothing_asked_or_nothing_found(write: Callable[..., Path], words: list[str]):
    rows, found = read(write(WORDS, VECTORS), words)
    assert rows.shape == (len(words), 3) and not rows.any()
    assert found.shape == (len(words),) and not found.any()


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_every_float_becomes_float32(tmp_path: Path, kind: type):
    np.savez(tmp_path / "v.npz", words=WORDS, vectors=VECTORS.astype(kind))
    rows, _ = read(tmp_path / "v.npz", WORDS.tolist())
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, VECTORS)


def test_the_width_is_known_before_the_rows_are_read(write: Callable[..., Path]):
    assert WordVectors(write(WORDS, VECTORS)).width == 3


@pytest.mark.parametrize("first", ["at name@domain.com", ". . .", "dog"])
def test_words_of_text_may_hold_spaces(tmp_path: Path, first: str):
    # Some of GloVe 840B do: the width tells the numbers from the word.
    write_text(tmp_path / "glove.txt", [first, ". . . .", "99"], VECTORS[:3])
    rows, found = read(tmp_path / "glove.txt", ["99", first, ". . . ."])
    assert found.all() and rows.tolist() == VECTORS[[2, 0, 1]].tolist()


@pytest.mark.parametrize("name", ["v.bin", "v.txt"])
def test_a_word_that_is_not_utf8_is_passed_over(tmp_path: Path, name: str):
    contents = (
        binary(["dog", "é"], VECTORS[:2]) if name == "v.bin" else b"dog 0 1 2\n\xc3\xa9 3 4 5"
    )
    (tmp_path / name).write_bytes(contents.replace("é".encode(), b"\xc3"))
    assert read(tmp_path / name, ["dog", "é", "\ufffd"], lowercase=True)[1].tolist() == [1, 0, 0]


def test_an_empty_line_is_no_row(tmp_path: Path):
    (tmp_path / "v.txt").write_text("\n2 1\ndog 1\n\ncat 2\n\n")
    assert read(tmp_path / "v.txt", ["cat"])[0].tolist() == [[2]]


BOUNDED = [name for name in FORMS if name not in ("GoogleNews.bin", "glove.vec", "packed.bin.gz")]


@pytest.mark.parametrize("name", BOUNDED)
def test_memory_holds_the_words_asked_for_and_not_the_file(tmp_path: Path, name: str):
    # 2,500 rows of 400 numbers: 4 MB of floats, more as text.
    vectors = np.random.default_rng(0).normal(size=(2_500, 400)).astype(np.float32)
    words = [f"W{number}" for number in range(2_500)]
    FORMS[name](tmp_path / name, words, vectors)
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
    ("half.bin", ROWS[: 4 + 24], "vectors.damaged", 3),
    ("more.bin", ROWS + b"\ndog", "vectors.damaged", None),
    ("no-width.bin", b"3 0\n", "vectors.damaged", None),
    ("wide.bin", b"3 70000\n", "vectors.damaged", None),
    ("not-finite.bin", binary(["dog"], VECTORS[:1] + np.inf), "vectors.not_finite", 1),
    ("empty.txt", b"", "vectors.line", 1),
    ("prose.txt", b"dog and cat\n", "vectors.line", 1),
    ("binary.txt", ROWS, "vectors.damaged", None),
    ("one-line.txt", b"x" * 2_000_000, "vectors.line", 1),
    ("narrow.txt", b"cat 1 2\ndog 1\n", "vectors.line", 2),
    ("wider.txt", b"cat 1 2\n\ndog 1 2 3\n", "vectors.line", 3),
    ("wider-than-said.txt", b"1 2\ndog 1 2 3\n", "vectors.line", 2),
    ("no-number-first.txt", b"cat 1 x 2\n", "vectors.line", 1),
    ("no-number.txt", b"cat 1 2\ndog 1 x\n", "vectors.line", 2),
    ("cut.txt", b"3 2\ndog 1 2\ncat 1 2\n", "vectors.damaged", None),
    ("more.txt", b"1 2\ndog 1 2\ncat 1 2\n", "vectors.damaged", None),
    ("cut-in-a-number.txt", b"cat 0.5 0.1\ndog 0.25 0.", "vectors.damaged", 2),
    ("cut-at-a-sign.txt", b"2 2\ndog 0.5 0.1\ncat 0.25 -", "vectors.damaged", 3),
    ("cut-power.txt.gz", gzip.compress(b"dog 1 2\ncat 1 2e-"), "vectors.damaged", 2),
    ("nan.txt", b"cat 1 2\ndog nan 2\n", "vectors.not_finite", 2),
    ("far.txt", b"dog 1e40 2\n", "vectors.not_finite", 1),
    ("plain.txt.gz", b"dog 1 2\n", "vectors.damaged", None),
    ("cut.txt.gz", gzip.compress(b"dog 1 2\n" * 9)[:-9], "vectors.damaged", None),
    ("cut.bin.gz", gzip.compress(ROWS[: 4 + 12 + 7]), "vectors.damaged", 2),
]


def test_a_mistake_names_the_file_and_the_line_or_row(tmp_path: Path):
    for name, contents, code, line in MISTAKES:
        path = tmp_path / name
        path.write_bytes(contents)
        with raises(code, path) as caught:
            read(path, ["dog"])
        assert caught.value.line == line, name
        assert ".bin" in str(caught.value) or name != "binary.txt"
        assert str(path) in str(caught.value)


def test_what_nobody_asked_for_need_not_be_a_number(tmp_path: Path):
    # Reading a number costs a hundred times what passing over it does.
    (tmp_path / "v.txt").write_text("dog 1 2\ncat x nan\n")
    assert read(tmp_path / "v.txt", ["dog"])[0].tolist() == [[1, 2]]


def test_a_folder_or_nothing_is_no_file_of_vectors(tmp_path: Path):
    (tmp_path / "v.bin").mkdir()
    for name in ("v.bin", "missing.npz", "missing.txt"):
        with raises("vectors.file", tmp_path / name):
            WordVectors(tmp_path / name)


def doubt(path: Path, contents: bytes) -> str:
    path.write_bytes(contents)
    file = WordVectors(path)
    file.look_up(["dog"])
    return file.doubt


@pytest.mark.parametrize("contents", [b"cat 1 2\ndog 0.1 0.823", b"1 2\ndog 0.1 0.823 "])
def test_a_last_line_without_its_end_may_be_whole_and_leaves_a_doubt(
    tmp_path: Path, contents: bytes
):
    # Cut to 0.8 it would look the same; with a line end it is whole.
    found = doubt(tmp_path / "v.txt", contents)
    assert str(tmp_path / "v.txt") in found and " 2: " in found
    assert doubt(tmp_path / "v.txt", contents + b"\n") == ""


def test_other_forms_leave_no_doubt(write: Callable[..., Path]):
    file = WordVectors(write(WORDS, VECTORS))
    file.look_up(["dog"])
    assert file.doubt == ""


OTHER_ARRAYS = [
    (dict(words=WORDS, rows=VECTORS), "vectors.form"),
    (dict(words=WORDS.astype(object), vectors=VECTORS), "vectors.form"),
    (dict(words=WORDS[:3], vectors=VECTORS), "vectors.form"),
    (dict(words=WORDS, vectors=VECTORS[:, 0]), "vectors.form"),
    (dict(words=WORDS, vectors=VECTORS[:, :0]), "vectors.form"),
    (dict(words=WORDS, vectors=np.asfortranarray(VECTORS)), "vectors.form"),
    (dict(words=WORDS[:1], vectors=np.zeros((1, 2**17 + 1), np.float32)), "vectors.form"),
    (dict(words=np.array(["x" * (2**17 + 1)] * 4), vectors=VECTORS), "vectors.form"),
    (dict(words=np.arange(4), vectors=VECTORS), "vectors.form"),
    (dict(words=WORDS, vectors=VECTORS.astype(int)), "vectors.form"),
    (dict(words=WORDS, vectors=VECTORS + np.float32(np.inf)), "vectors.not_finite"),
]


def test_an_archive_of_something_else(tmp_path: Path):
    for arrays, code in OTHER_ARRAYS:
        np.savez(tmp_path / "v.npz", **arrays)
        with raises(code, tmp_path / "v.npz"):
            read(tmp_path / "v.npz", ["dog"])


def test_a_damaged_archive(path: Path):
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(VECTORS.tobytes()) + 5] ^= 1
    array = io.BytesIO()
    np.save(array, VECTORS)
    for contents in (b"", b"dog 0.1", whole[:200], bytes(flipped), array.getvalue()):
        path.write_bytes(contents)
        with raises("vectors.damaged", path):
            read(path, ["dog"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_that_ends_before_or_behind_its_rows(tmp_path: Path, save: Callable[..., None]):
    """The archive is whole, its member is not: what a disk that filled leaves in some programs."""
    path = tmp_path / "vectors.npz"
    save(path, words=WORDS, vectors=VECTORS)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for contents in (entries["vectors.npy"][:-4], entries["vectors.npy"] + b"more"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("words.npy", entries["words.npy"])
            archive.writestr("vectors.npy", contents)
        with raises("vectors.damaged", path):
            read(path, ["dog"])


def test_the_real_vectors_know_common_words(glove_vectors: Path):
    rows, found = read(glove_vectors, ["dog", "cat", "beach", "qzxwv"])
    assert rows.shape == (4, 300) and found.tolist() == [True, True, True, False]
    dog, cat, beach = (row / np.linalg.norm(row) for row in rows[:3])
    assert dog @ cat > dog @ beach
