"""What people bring: delimiters, names of columns, encodings, line ends, lists and marks."""

from __future__ import annotations

import codecs
import gzip
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.errors import raises
from tests.unit.datasets.tables import captions, read, write
from tf_dpce.datasets.cells import BROKEN_LIST, STANDS_FOR_NOTHING
from tf_dpce.datasets.delimited import UNCLOSED, WRONG_FIELDS
from tf_dpce.datasets.listing import NO_CAPTION, Rejected

# --- delimiters -----------------------------------------------------------------------------------

# The header and a row, whose caption holds every other delimiter, and that caption.
DELIMITERS = {
    "Image,Caption\nd.jpg,a dog; it | sleeps\n": "a dog; it | sleeps",
    'image, caption\nd.jpg, "a dog, asleep"\n': "a dog, asleep",
    "image;caption\nd.jpg;a dog, it | sleeps\n": "a dog, it | sleeps",
    "image\tcaption\nd.jpg\ta dog, it; | sleeps\n": "a dog, it; | sleeps",
    "image|caption\nd.jpg|a dog, it; sleeps\n": "a dog, it; sleeps",
    'image| caption\nd.jpg| "a dog", it; sleeps\n': '"a dog", it; sleeps',
    "sep=;\nimage;caption\nd.jpg;a dog\n": "a dog",
    '"sep=,"\r\nimage,caption\r\nd.jpg,a dog\r\n': "a dog",
    '"image";"caption"\n"d.jpg";"a ""dog""; asleep"\n': 'a "dog"; asleep',
    "image\tcaption\tsize, in bytes\nd.jpg\ta dog\t1\n": "a dog",
}


@pytest.mark.parametrize("contents", DELIMITERS)
def test_the_delimiter_is_found_from_the_header(tmp_path: Path, contents: str):
    for name in ("a.csv", "a.tsv", "a.txt"):
        (tmp_path / name).write_text(contents)
        assert captions(tmp_path / name) == [DELIMITERS[contents]], name


def test_what_was_taken_is_stated(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "a.csv"
    path.write_bytes("File_Name;caption_1;caption_0\nd.jpg;a dog;it sleeps\n".encode("utf-16"))
    with caplog.at_level(logging.INFO, "tf_dpce"):
        assert captions(path) == ["a dog", "it sleeps"]
        write(tmp_path / "b.csv", [{"image": "d.jpg"} | {f"caption_{n}": "a" for n in range(999)}])
        assert captions(tmp_path / "b.csv") == ["a"]
    stated = " ".join(caplog.messages)
    for word in ("UTF-16", "File_Name", "caption_1, caption_0", "caption_0, caption_1, c"):
        assert word in stated
    assert "separated by ;" in stated and "separated by ," in stated
    assert max(map(len, caplog.messages)) < 300 + len(str(tmp_path))


# --- columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"filepath": "d.jpg", "title": "a dog"}, ["a dog"]),
        ({" Image ": "d.jpg", "CAPTION": "a dog"}, ["a dog"]),
        ({"file_name": "d.jpg", "caption_0": "a dog", "caption_1": "it sleeps"}, None),
        ({"file name": "d.jpg", "caption1": "a dog", "Caption 2": "it sleeps"}, None),
        ({"image": "d.jpg", "filename": "no", "caption": "a dog", "text": "no"}, ["a dog"]),
        ({"image_name": "d.jpg", "comment_number": "0", "comment": "a dog"}, ["a dog"]),
        ({"path": "d.jpg", "sentences": '["a dog", "it sleeps"]'}, None),
        ({"image": "d.jpg", "caption_0": "a dog", "caption_1": ""}, ["a dog"]),
    ],
)
def test_columns_are_found_by_usual_names(
    tmp_path: Path, row: dict[str, str], expected: list[str] | None
):
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert captions(write(tmp_path / name, [row])) == (expected or ["a dog", "it sleeps"])


def test_columns_that_are_given_win(tmp_path: Path):
    row = {"image": "no", "caption": "no", "Foto": "d.jpg", "en": "a dog", "de": "ein Hund"}
    path = write(tmp_path / "a.csv", [row])
    given: dict[str, Any] = {"image_column": "foto", "caption_column": ["de", "en"]}
    (image,), _ = read(path, **given)
    assert (image.image_id, image.captions) == ("d.jpg", ["a dog", "ein Hund"])
    both = write(tmp_path / "b.csv", [{"filepath": "no", "file_name": "d.jpg", "text": "a dog"}])
    with raises("table.ambiguous", both, 1):
        read(both)
    assert captions(both, image_column="file_name") == ["a dog"]
    with raises("table.columns", path, 1):
        read(path, image_column="bild")
    with raises("table.columns", path, 1):
        read(path, caption_column=["de", "fr"])


def test_the_first_whole_object_decides_the_columns_of_a_json_table(tmp_path: Path):
    # A row without its caption does not take another column for it.
    rows = [{"image": "a.jpg", "caption": "a"}, {"image": "b.jpg", "title": "no caption of b"}]
    (image,), rejected = read(path := write(tmp_path / "a.jsonl", rows))
    assert image.captions == ["a"] and rejected == [Rejected(f"{path} line 2", NO_CAPTION)]


# --- encodings and line ends ----------------------------------------------------------------------

TABLE = "image,caption\nä.jpg,ein Kätzchen\nb.jpg,a cat\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str):
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    path = tmp_path / "a.csv"
    path.write_bytes(mark + TABLE.replace("\n", end).encode(encoding))
    images, rejected = read(path)
    assert [image.captions for image in images] == [["ein Kätzchen"], ["a cat"]]
    assert images[0].image_id == "ä.jpg" and rejected == []
    # Of a packed file the name need not say so.
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert read(path) == (images, [])


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ('image\tcaption\nd.jpg\t"a dog,\nasleep"\n', "a dog,\nasleep"),
        ('image\tcaption\tsplit\nd.jpg\t"a ""dog"",\n\nasleep"\ttrain\n', 'a "dog",\nasleep'),
        ("image\tcaption\nd.jpg\ta dog\rasleep\n", "a dog\rasleep"),
    ],
)
def test_a_caption_of_a_tsv_may_have_line_ends_in_quotes(
    tmp_path: Path, contents: str, expected: str
):
    path = tmp_path / "a.tsv"
    path.write_bytes(contents.encode())
    assert captions(path) == [expected]


# --- rows that are neither lost nor glued ---------------------------------------------------------


def rows_of(path: Path) -> dict[str, str]:
    images, _ = read(path)
    return {image.image_id: " / ".join(image.captions) for image in images}


def test_a_quote_swallows_no_row(tmp_path: Path):
    # Row 2 opens a quote that row 4 seems to close.
    fields = [("a.jpg", "one"), ("b.jpg", '"two'), ("c.jpg", "three"), ("d.jpg", '5" wide')]
    fields += [("e.jpg", 'a "big" dog'), ("f.jpg", '"whole"'), ("g.jpg", 'to 5"')]
    path = tmp_path / "a.tsv"
    path.write_text("\n".join("\t".join(row) for row in [("image", "caption"), *fields]))
    assert rows_of(path) == dict(fields) | {"f.jpg": "whole"}
    path = tmp_path / "a.csv"
    path.write_text("\n".join(",".join(row) for row in [("image", "caption"), *fields]))
    images, rejected = read(path)
    assert [image.image_id for image in images] == [f"{name}.jpg" for name in "acdefg"]
    assert rejected == [Rejected(f"{path} line 3", UNCLOSED)]


@pytest.mark.parametrize("names", ["p{:02}.jpg", "photos/{}", "COCO_{:012}"])
def test_rows_behind_an_open_quote_are_known_by_the_names_of_images(tmp_path: Path, names: str):
    rows = [f"{names.format(number)},caption {number}" for number in range(50)]
    rows[7] = rows[7].replace(",", ',"')
    rows[31] += ' 5"'
    rows[40] = rows[40].replace(",", ',"')
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["image,caption", *rows]))
    images, rejected = read(path)
    assert len(images) == 48
    assert rejected == [Rejected(f"{path} line {line}", UNCLOSED) for line in (9, 42)]


def test_line_ends_in_quotes_are_part_of_a_caption(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'image,caption\r\na.jpg,"a dog,\r\nbrown, asleep\r\n\r\n""here"""\r\nb.jpg,a cat\r\n'
    )
    assert rows_of(path) == {"a.jpg": 'a dog,\nbrown, asleep\n"here"', "b.jpg": "a cat"}
    assert [image.origin.line for image in read(path)[0]] == [2, 6]


def test_a_table_of_bars_loses_the_row_without_its_second_bar_alone(tmp_path: Path):
    path = tmp_path / "results.csv"
    path.write_text(
        "image_name| comment_number| comment\n1.jpg| 0| Two men .\n1.jpg| 1| They talk .\n"
        '2.jpg| 0| A "dog .\n2.jpg| 4   A dog runs .\n3.jpg| 0| A cat .\n'
    )
    assert rows_of(path) == {
        "1.jpg": "Two men . / They talk .",
        "2.jpg": 'A "dog .',
        "3.jpg": "A cat .",
    }
    assert read(path)[1] == [Rejected(f"{path} line 5", WRONG_FIELDS)]


# --- lists and marks of nothing -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("['a dog', \"b's\"]", ["a dog", "b's"]),
        ("[ 'a dog' , None ]", ["a dog"]),
        ('["a dog", "it sleeps"]', ["a dog", "it sleeps"]),
        ('["a dog", null]', ["a dog"]),
        ("[unclear]", ["[unclear]"]),
        ("[unclear] a dog", ["[unclear] a dog"]),
        ("['a dog' 'it sleeps']", BROKEN_LIST),
        ("['a dog'\n 'it sleeps']", BROKEN_LIST),
        ("['a dog', nan]", BROKEN_LIST),
        ("['a dog', 'it sle", BROKEN_LIST),
        ("[['a dog'], ['it sleeps']]", BROKEN_LIST),
        ("['a dog', __import__('os')]", BROKEN_LIST),
        ("('a dog', 'it sleeps')", ["a dog", "it sleeps"]),
        ("('a dog' 'it sleeps')", ["('a dog' 'it sleeps')"]),
        ("(asleep)", ["(asleep)"]),
        ('("asleep")', ['("asleep")']),
        ('[{"raw": "a dog"}, {"raw": "it sleeps"}]', ["a dog", "it sleeps"]),
        ("[{'raw': 'a dog'}]", BROKEN_LIST),
        ("{'raw': 'a dog'}", BROKEN_LIST),
        ("[]", NO_CAPTION),
        ("[" * 5000 + "]" * 5000, ["[" * 5000 + "]" * 5000]),
    ],
)
def test_lists_as_pandas_writes_them(tmp_path: Path, cell: str, expected: list[str] | str):
    rows = [{"image": "d.jpg", "caption": cell}, {"image": "c.jpg", "caption": "a cat"}]
    images, rejected = read(path := write(tmp_path / "a.csv", rows))
    if isinstance(expected, str):
        assert rejected == [Rejected(f"{path} line 2", expected)] and len(images) == 1
    else:
        assert images[0].captions == expected


MARKS = ["nan", "NaN", "None", "null", "NULL", "N/A", "NA", "n/a", "#N/A", "#NAME?", "<NA>"]


def test_marks_of_nothing_are_left_out_and_counted(tmp_path: Path):
    rows = [{"image": "d.jpg", "caption": mark} for mark in MARKS]
    words = ["0", "nan bread", "none of them", "a dog"]
    rows += [{"image": "d.jpg", "caption": word} for word in words]
    (image,), rejected = read(path := write(tmp_path / "a.csv", rows))
    assert image.captions == words
    marks = [Rejected(f"{path} line {line}", STANDS_FOR_NOTHING) for line in range(2, 13)]
    assert rejected == marks
    row = {"image": "d.jpg", "caption_0": "a dog", "caption_1": "nan", "instance": "NaN"}
    (image,), rejected = read(write(path, [row]))
    # The row is used, so that the place of the caption is not that of the row.
    assert rejected == [Rejected(f"{path} line 2 caption_1", STANDS_FOR_NOTHING)]
    assert (image.captions, image.instance) == (["a dog"], "d.jpg")


def test_numbers_with_a_missing_one_among_them_are_instances(tmp_path: Path):
    rows = [{"image": f"{n}.jpg", "caption": "a", "instance": i} for n, i in enumerate([7.0, None])]
    rows.append({"image": "2.jpg", "caption": "a", "instance": float("nan")})
    for name in ("a.jsonl", "a.parquet"):
        images, rejected = read(write(tmp_path / name, rows))
        assert [image.instance for image in images] == ["7", "1.jpg", "2.jpg"] and not rejected
