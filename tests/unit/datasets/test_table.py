"""A user's own table, in every format, with its mistakes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.errors import raises
from tests.unit.datasets.tables import captions, read, write
from tf_dpce.datasets.cells import (
    HALF_CHARACTER,
    NO_CAPTION_TEXT,
    NO_TEXT,
    NOT_UTF8,
    NUL,
    UNKNOWN_SPLIT,
)
from tf_dpce.datasets.columns import TWICE
from tf_dpce.datasets.delimited import MALFORMED, UNCLOSED, WRONG_FIELDS
from tf_dpce.datasets.json_table import NO_COLUMNS, NO_OBJECT
from tf_dpce.datasets.listing import NO_CAPTION, NO_NAME, Image, Rejected
from tf_dpce.datasets.splits import drawn_splits
from tf_dpce.datasets.table import REPEATED

AWKWARD = 'a "big", brown dog asleep'
ROWS = [
    {"image": "a/dog.jpg", "caption": "a dog", "split": "train", "instance": "rex"},
    {"image": "b/Kätzchen.jpg", "caption": "eine Katze", "split": "val", "instance": "mia"},
    {"image": "./a//dog.jpg", "caption": AWKWARD, "split": "train", "instance": "rex"},
    {"image": "a/dog.jpg", "caption": "a dog", "split": "train", "instance": "rex"},
]


FORMS = ["csv", "tsv", "txt", "csv.gz", "jsonl", "ndjson", "json", "json.gz", "parquet"]


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_images(tmp_path: Path, form: str):
    # A name that is spelt in two ways is one image, and a repeated caption is there once.
    expected = [
        Image("a/dog.jpg", tmp_path / "a/dog.jpg", ["a dog", AWKWARD], "train", "rex"),
        Image("b/Kätzchen.jpg", tmp_path / "b/Kätzchen.jpg", ["eine Katze"], "val", "mia"),
    ]
    path = write(tmp_path / f"pairs.{form}", ROWS)
    place = {"json": "row 4", "json.gz": "row 4", "parquet": "row 4"}.get(form)
    place = place or ("line 4" if form in ("jsonl", "ndjson") else "line 5")
    assert read(path) == (expected, [Rejected(f"{path} {place}", REPEATED)])


def test_what_captions_and_cells_may_look_like(tmp_path: Path):
    several = [{"image": "dog.jpg", "caption": ["a dog", "it sleeps", "a dog"]}]
    in_cell = [{"image": "dog.jpg", "caption": json.dumps(several[0]["caption"])}]
    for name, rows in (("a.jsonl", several), ("a.parquet", several), ("a.csv", in_cell)):
        assert captions(write(tmp_path / name, rows)) == ["a dog", "it sleeps"], name
    table = tmp_path / "a.csv"
    table.write_text("image,caption\ndog.jpg,[unclear] a dog\n")
    assert captions(table) == ["[unclear] a dog"], "no list"
    # As a spreadsheet saves it.
    table.write_bytes("\ufeff\r\n\r\nimage,caption\r\ndog.jpg,a dog\r\n\r\n".encode())
    assert captions(table) == ["a dog"]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"image": "dog.jpg", "caption": "a \\ud83d\\udc36"}\n')
    assert captions(lines) == ["a \U0001f436"], "two escapes make a character"


def test_what_has_no_name_or_no_caption_is_rejected_and_the_rest_read(tmp_path: Path):
    rows = [
        {"image": None, "caption": "of nothing", "instance": 6},
        {"image": "silent.jpg", "caption": None, "instance": 7},
        {"image": "d.jpg", "caption": "a dog", "instance": 7},
    ]
    (tmp_path / "photos").mkdir()
    path = write(tmp_path / "a.parquet", rows)
    ((image,), rejected) = read(path, tmp_path / "photos")
    assert (image.captions, image.instance, image.origin.line) == (["a dog"], "7", 3)
    assert image.path == tmp_path / "photos" / "d.jpg"
    assert rejected == [Rejected(f"{path} row 1", NO_NAME), Rejected(f"{path} row 2", NO_CAPTION)]


# --- splits ---------------------------------------------------------------------------------------


def test_a_split_is_drawn_by_instance_unless_a_row_gives_one(tmp_path: Path):
    people = [f"person {number // 4}" for number in range(400)]
    rows = [{"image": f"{n}.jpg", "caption": "a", "instance": who} for n, who in enumerate(people)]
    rows.append({"image": "own.jpg", "caption": "a", "split": "test"})
    images, _ = read(write(tmp_path / "a.jsonl", rows), seed=3)
    expected = drawn_splits(people, seed=3) | {"own.jpg": "test"}
    assert {image.instance: image.split for image in images} == expected and len(images) == 401


def test_a_split_file_replaces_a_column(tmp_path: Path):
    lists = tmp_path / "splits.tsv"
    lists.write_text("./a/dog.jpg\ttest\n")
    images, rejected = read(write(tmp_path / "pairs.csv", ROWS), split_file=lists)
    assert [(image.image_id, image.split) for image in images] == [("a/dog.jpg", "test")]
    reasons = [(Path(item.path).name, item.reason) for item in rejected]
    assert reasons == [("pairs.csv line 5", REPEATED), ("Kätzchen.jpg", "in no split")]


# --- mistakes -------------------------------------------------------------------------------------

HEADER = "image,caption,split\n"
GOOD = "c.jpg,a cat,train\n"
LINE = '{"image": "c.jpg", "caption": "a cat"}\n'
# What a file holds: its name, its contents, the line that is rejected, and why.
REJECTED = [
    ("a.csv", HEADER + "dog.jpg,a dog\n" + GOOD, 2, WRONG_FIELDS),
    ("a.csv", HEADER + "d.jpg,a dog, asleep,train\n" + GOOD, 2, WRONG_FIELDS),
    ("a.csv", HEADER + " \n" + GOOD, 2, WRONG_FIELDS),
    ("a.csv", HEADER + GOOD + 'd.jpg,"a dog,train\n', 3, UNCLOSED),
    ("a.csv", HEADER + 'd.jpg,"a dog" asleep,train\n' + GOOD, 2, MALFORMED),
    ("a.csv", HEADER + GOOD + "d.jpg,a dog,devil\n", 3, UNKNOWN_SPLIT),
    ("a.csv", HEADER + "d.jpg,a dog,\n" + GOOD, 2, UNKNOWN_SPLIT),
    ("a.csv", HEADER + "d.jpg,a\0dog,train\n" + GOOD, 2, NUL),
    ("a.csv", HEADER + "./,a dog,train\n" + GOOD, 2, NO_NAME),
    ("a.csv", HEADER + "nan,a dog,train\n" + GOOD, 2, NO_NAME),
    ("a.csv", HEADER + "d.jpg, ,train\n" + GOOD, 2, NO_CAPTION),
    ("a.csv", (HEADER + "d.jpg,caf\xe9,train\n" + GOOD).encode("latin-1"), 2, NOT_UTF8),
    ("a.csv", HEADER + 'd.jpg,"[""dog"", ""\\udc36""]",train\n' + GOOD, 2, HALF_CHARACTER),
    ("a.jsonl", LINE + '{"image"\n', 2, NO_OBJECT),
    ("a.jsonl", "[" * 100_000 + "\n" + LINE, 1, NO_OBJECT),
    ("a.jsonl", '["d.jpg", "a dog"]\n' + LINE, 1, NO_OBJECT),
    ("a.jsonl", LINE + '{"image": "d.jpg", "Image": "e.jpg", "caption": "a"}\n', 2, TWICE),
    ("a.jsonl", LINE + '{"image": "d.jpg", "caption": "a", "caption": "b"}\n', 2, NO_OBJECT),
    (
        *("a.jsonl", LINE + '{"image": "d.jpg", "caption": [{"raw": "a", "raw": "b"}]}\n'),
        *(2, NO_CAPTION_TEXT),
    ),
    ("a.jsonl", LINE + '{"image": "d.jpg"}\n', 2, NO_CAPTION),
    ("a.jsonl", '{"image": "d.jpg"}\n' + LINE, 1, NO_COLUMNS),
    ("a.jsonl", '{"image": "d.jpg", "caption": 3}\n' + LINE, 1, NO_CAPTION_TEXT),
    ("a.jsonl", '{"image": "d.jpg", "caption": ["a", 3]}\n' + LINE, 1, NO_CAPTION_TEXT),
    ("a.jsonl", '{"image": "d.jpg", "caption": [[[["a"]]]]}\n' + LINE, 1, NO_CAPTION_TEXT),
    ("a.jsonl", '{"image": "d.jpg", "caption": {"words": "a"}}\n' + LINE, 1, NO_CAPTION_TEXT),
    ("a.jsonl", '{"image": true, "caption": "a"}\n' + LINE, 1, NO_TEXT),
    ("a.jsonl", '{"image": 0.5, "caption": "a"}\n' + LINE, 1, NO_TEXT),
    ("a.jsonl", LINE + '{"image": "d.jpg", "caption": "\\ud83d dog"}\n', 2, HALF_CHARACTER),
    ("a.jsonl", LINE + '{"image": "d.jpg", "caption": "a", "split": null}\n', 2, UNKNOWN_SPLIT),
]


@pytest.mark.parametrize(("file", "contents", "line", "reason"), REJECTED)
def test_a_bad_row_is_rejected_and_the_rest_read(
    tmp_path: Path, file: str, contents: str | bytes, line: int, reason: str
):
    path = tmp_path / file
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    (image,), rejected = read(path)
    assert (image.image_id, image.captions) == ("c.jpg", ["a cat"])
    assert rejected == [Rejected(f"{path} line {line}", reason)]


# What a file holds: its name, its contents, the code of the mistake and its line.
MISTAKES = [
    ("a.csv", "name,caption\n", "table.columns", 1),
    ("a.csv", "image,words\n", "table.columns", 1),
    ("a.csv", "\n\nimage,words\n", "table.columns", 3),
    ("a.csv", "image,Image,caption\n", "table.ambiguous", 1),
    ("a.csv", "image,caption,split,Split\n", "table.ambiguous", 1),
    ("a.csv", 'sep="\nimage"caption\n', "table.columns", 1),
    ("a.csv", "file_name,filepath,caption\n", "table.ambiguous", 1),
    ("a.csv", "image,title,text\n", "table.ambiguous", 1),
    ("a.csv", HEADER + "d.jpg,a dog,train\nd.jpg,it sleeps,val\n", "dataset.two_values", 3),
    ("a.csv", "größe,image,caption\n".encode("cp1252"), "dataset.encoding", 1),
    ("a.csv", (HEADER + GOOD).encode("utf-16-le"), "dataset.encoding", 1),
    ("a.csv", (HEADER + GOOD + GOOD).encode("utf-16")[:-1], "dataset.encoding", 3),
    ("a.csv.gz", gzip.compress((HEADER + GOOD).encode(), mtime=0)[:-9], "table.malformed", 1),
    ("a.csv", HEADER, "dataset.no_image", None),
    ("a.tsv", "", "dataset.no_image", None),
    ("a.csv", "sep=;\n", "dataset.no_image", None),
    ("a.csv", HEADER + "d.jpg,,train\n", "dataset.no_image", None),
    ("a.jsonl", "\n", "dataset.no_image", None),
    ("a.jsonl", '{"image": "d.jpg"}\n', "table.columns", 1),
    ("a.json", '\n[{"image": "d.jpg", "caption": "a"},\n{"image" 5}]', "table.malformed", 3),
    ("a.json", "[" * 100_000, "table.malformed", 1),
    ("a.parquet", HEADER, "table.malformed", None),
    ("a.parquet.gz", HEADER, "table.kind", None),
    ("a.xlsx", HEADER, "table.kind", None),
]


@pytest.mark.parametrize(("file", "contents", "code", "line"), MISTAKES)
def test_a_mistake_names_the_file_and_the_line(
    tmp_path: Path, file: str, contents: str | bytes, code: str, line: int | None
):
    path = tmp_path / file
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with raises(code, path) as caught:
        read(path)
    assert caught.value.line == line and str(path) in str(caught.value)


def test_no_message_floods_the_terminal(tmp_path: Path):
    long = "x" * 100_000
    for name, text in (("a.csv", f"{long},caption\n"), ("b.jsonl", f'{{"{long}": 1}}\n')):
        (tmp_path / name).write_text(text)
        with raises("table.columns") as caught:
            read(tmp_path / name)
        assert len(str(caught.value)) < 200 + len(str(tmp_path))


def test_missing_files_and_folders(tmp_path: Path):
    with raises("dataset.file", tmp_path / "a.csv"):
        read(tmp_path / "a.csv")
    with raises("dataset.file", tmp_path / "*.csv"):
        read(tmp_path / "*.csv")
    with raises("table.kind", tmp_path):
        read(tmp_path)
    with raises("dataset.folder", tmp_path / "photos"):
        read(write(tmp_path / "pairs.csv", ROWS), tmp_path / "photos")
