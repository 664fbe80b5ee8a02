"""Word vectors: look-up in each form of file, and files that are something else."""

from __future__ import annotations

import gzip
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.word_vectors import look_up, open_vectors

WORDS = np.array(["dog", "Dog", "naïve", "犬"])
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def read(path: Path, words: list[str], lowercase: bool = False) -> tuple[np.ndarray, np.ndarray]:
    return look_up(open_vectors(path), words, lowercase)


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
    assert open_vectors(write(WORDS, VECTORS)).width == 3


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
    # 10,000 rows of 100 numbers: 4 MB of floats, more as text.
    vectors = np.random.default_rng(0).normal(size=(10_000, 100)).astype(np.float32)
    words = [f"W{number}" for number in range(10_000)]
    FORMS[name](tmp_path / name, words, vectors)
    tracemalloc.start()
    try:
        rows, _ = read(tmp_path / name, ["w0", "w9999"], lowercase=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(rows, vectors[[0, 9_999]])
    # Two megabytes, and as much for a file of any length.
    assert peak < 2**21


# --- mistakes -------------------------------------------------------------------------------------


# Three rows of two numbers; a row of "dog" takes 4 + 8 bytes, the first line 4.
ROWS = binary(["dog", "cat", "cow"], VECTORS[:3, :2])
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty.bin": (b"", "is not word2vec's binary form"),
    "text.bin": (b"dog 0.1 0.2\n", "is not word2vec's binary form"),
    "headed.bin": (
        b"2 2\ndog 0.12345678 0.12345678\ncat 1 2\n",
        "not word2vec's .* is more behind",
    ),
    "cut.bin": (ROWS[: 4 + 12 + 7], "is cut short.*: row 2 of 3 is not whole"),
    "half.bin": (ROWS[: 4 + 24], "is cut short.*: row 3 of 3 is not whole"),
    "more.bin": (ROWS + b"\ndog", "there is more behind its 3 rows"),
    "no-width.bin": (b"3 0\n", "promises 3 vectors of 0 numbers"),
    "wide.bin": (b"3 70000\n", "promises 3 vectors of 70000 numbers"),
    "not-finite.bin": (
        binary(["dog"], VECTORS[:1] + np.inf),
        "row 1: the vector of 'dog' is not fin",
    ),
    "empty.txt": (b"", "line 1 is not a word and its numbers"),
    "prose.txt": (b"dog and cat\n", "line 1 is not a word and its numbers"),
    "binary.txt": (ROWS, r"binary form, which is known by the ending \.bin"),
    "one-line.txt": (b"x" * 2_000_000, "line 1 is not a word"),
    "narrow.txt": (b"cat 1 2\ndog 1\n", "line 2 is not a word and 2 numbers"),
    "wider.txt": (b"cat 1 2\n\ndog 1 2 3\n", "line 3 is not a word and 2 numbers"),
    "wider-than-said.txt": (b"1 2\ndog 1 2 3\n", "line 2 is not a word and 2 numbers"),
    "no-number-first.txt": (b"cat 1 x 2\n", "line 1 is not a word and 1 numbers"),
    "no-number.txt": (b"cat 1 2\ndog 1 x\n", "line 2 is not a word and 2 numbers"),
    "cut.txt": (b"3 2\ndog 1 2\ncat 1 2\n", "promises 3 vectors and holds 2: it is cut short"),
    "more.txt": (b"1 2\ndog 1 2\ncat 1 2\n", "promises 1 vectors and holds 2"),
    "cut-in-a-number.txt": (b"cat 0.5 0.1\ndog 0.25 0.", "ends within a number of line 2"),
    "cut-at-a-sign.txt": (b"2 2\ndog 0.5 0.1\ncat 0.25 -", "ends within a number of line 3"),
    "cut-power.txt.gz": (gzip.compress(b"dog 1 2\ncat 1 2e-"), "ends within a number of line 2"),
    "nan.txt": (b"cat 1 2\ndog nan 2\n", "line 2: the vector of 'dog' is not finite"),
    "far.txt": (b"dog 1e40 2\n", "line 1: the vector of 'dog' is not finite"),
    "plain.txt.gz": (b"dog 1 2\n", "cannot be unpacked past byte 0"),
    "cut.txt.gz": (gzip.compress(b"dog 1 2\n" * 9)[:-9], "cannot be unpacked past byte"),
    "cut.bin.gz": (gzip.compress(ROWS[: 4 + 12 + 7]), "is cut short.*: row 2 of 3"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_one_clear_line_that_names_the_place(tmp_path: Path, name: str):
    contents, message = DAMAGED[name]
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / name, ["dog"])
    assert name in str(error.value) and "\n" not in str(error.value)
    assert re.search("(fetch|make) it|the file again", str(error.value)), "what is to be done?"


def test_what_nobody_asked_for_need_not_be_a_number(tmp_path: Path):
    # Reading a number costs a hundred times what passing over it does.
    (tmp_path / "v.txt").write_text("dog 1 2\ncat x nan\n")
    assert read(tmp_path / "v.txt", ["dog"])[0].tolist() == [[1, 2]]


@pytest.mark.parametrize("name", ["v.bin", "v.txt"])
def test_a_folder_is_no_file_of_vectors(tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is not a file of word vectors"):
        open_vectors(tmp_path / name)


def doubt(path: Path, contents: bytes) -> str:
    path.write_bytes(contents)
    file = open_vectors(path)
    look_up(file, ["dog"])
    return file.doubt


@pytest.mark.parametrize("contents", [b"cat 1 2\ndog 0.1 0.823", b"1 2\ndog 0.1 0.823 "])
def test_a_last_line_without_its_end_may_be_whole_and_is_told(tmp_path: Path, contents: bytes):
    # Cut to 0.8 it would look the same; with a line end it is whole.
    told = doubt(tmp_path / "v.txt", contents)
    assert told.startswith(f"{tmp_path / 'v.txt'} has no line end behind its last line, 2: ")
    assert doubt(tmp_path / "v.txt", contents + b"\n") == ""


def test_other_forms_leave_no_doubt(write: Callable[..., Path]):
    file = open_vectors(write(WORDS, VECTORS))
    look_up(file, ["dog"])
    assert file.doubt == ""


BAD = {
    "no such array": (dict(words=WORDS, rows=VECTORS), "is not a file of word vectors"),
    "pickled": (dict(words=WORDS.astype(object), vectors=VECTORS), "it holds object"),
    "fewer words": (dict(words=WORDS[:3], vectors=VECTORS), r"it holds .*\(3,\).*\(4, 3\)"),
    "flat": (dict(words=WORDS, vectors=VECTORS[:, 0]), r"it holds .*\(4,\) and float32 \(4,\)"),
    "no numbers": (dict(words=WORDS, vectors=VECTORS[:, :0]), r"it holds .* float32 \(4, 0\)"),
    "by columns": (
        dict(words=WORDS, vectors=np.asfortranarray(VECTORS)),
        "stored by columns: save np.ascontiguousarray",
    ),
    "wide": (dict(words=WORDS[:1], vectors=np.zeros((1, 2**17 + 1), np.float32)), "a row has more"),
    "long words": (
        dict(words=np.array(["x" * (2**17 + 1)] * 4), vectors=VECTORS),
        "a row has more",
    ),
    "numbers": (dict(words=np.arange(4), vectors=VECTORS), "it holds int64"),
    "integers": (dict(words=WORDS, vectors=VECTORS.astype(int)), "it holds .* int64"),
    "not finite": (dict(words=WORDS, vectors=VECTORS + np.float32(np.inf)), "not finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_something_else_is_one_clear_line(tmp_path: Path, name: str):
    arrays, message = BAD[name]
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "v.npz", ["dog"])
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
    with pytest.raises(UserError, match="vectors.npz is not a file of word vectors") as error:
        read(path, ["dog"])
    remedy = "folder" if damage == "folder" else "cut short or damaged: fetch or make it again"
    assert remedy in str(error.value) or damage == "bare array"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_that_ends_before_its_rows_is_told(tmp_path: Path, save: Callable[..., None]):
    """The archive is whole, its member is not: what a disk that filled leaves in some programs."""
    path = tmp_path / "vectors.npz"
    save(path, words=WORDS, vectors=VECTORS)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for contents in (members["vectors.npy"][:-4], members["vectors.npy"] + b"more"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("words.npy", members["words.npy"])
            archive.writestr("vectors.npy", contents)
        with pytest.raises(UserError, match="damaged: fetch or make it again"):
            read(path, ["dog"])


def test_a_flipped_byte_is_noticed(path: Path):
    contents = bytearray(path.read_bytes())
    place = contents.index(VECTORS.tobytes())
    contents[place + 5] ^= 1
    path.write_bytes(contents)
    with pytest.raises(UserError, match="vectors.npz is not a file of word vectors"):
        read(path, ["dog"])


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="missing.npz does not exist"):
        open_vectors(tmp_path / "missing.npz")


def test_the_real_vectors_know_common_words(glove_vectors: Path):
    rows, found = read(glove_vectors, ["dog", "cat", "beach", "qzxwv"])
    assert rows.shape == (4, 300) and found.tolist() == [True, True, True, False]
    dog, cat, beach = (row / np.linalg.norm(row) for row in rows[:3])
    assert dog @ cat > dog @ beach
