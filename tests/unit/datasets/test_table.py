"""A user's own table, in four formats, with its mistakes."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.errors import raises
from tf_dpce.datasets.listing import Image, Rejected, gather
from tf_dpce.datasets.table import read_table

AWKWARD = 'a "big", brown\tdog\nasleep'
ROWS = [
    {"image": "a/dog.jpg", "caption": "a dog", "split": "train", "instance": "rex"},
    {"image": "b/Kätzchen.jpg", "caption": "eine Katze", "split": "val", "instance": "mia"},
    {"image": "./a//dog.jpg", "caption": AWKWARD, "split": "train", "instance": "rex"},
    {"image": "a/dog.jpg", "caption": "a dog", "split": "train", "instance": "rex"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as stream:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(stream, rows[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(*arguments: Any, **options: Any) -> tuple[list[Image], list[Rejected]]:
    return gather(read_table(*arguments, **options))


def captions(path: Path) -> list[str]:
    """The captions of the sole image of a table."""
    ((image,), _) = read(path)
    return image.captions


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_images(tmp_path: Path, kind: str):
    # A name that is spelt in two ways is one image, and a repeated caption is there once.
    expected = [
        Image("a/dog.jpg", tmp_path / "a/dog.jpg", ["a dog", AWKWARD], "train", "rex"),
        Image("b/Kätzchen.jpg", tmp_path / "b/Kätzchen.jpg", ["eine Katze"], "val", "mia"),
    ]
    assert read(write(tmp_path / f"pairs.{kind}", ROWS)) == (expected, [])


def test_empty_lines_before_the_header_are_no_rows(tmp_path: Path):
    (tmp_path / "t.csv").write_text("\n\nimage,caption\na.jpg,a dog\n")
    assert captions(tmp_path / "t.csv") == ["a dog"]


def test_what_captions_and_cells_may_look_like(tmp_path: Path):
    several = [{"image": "dog.jpg", "caption": ["a dog", "it sleeps", "a dog"]}]
    in_cell = [{"image": "dog.jpg", "caption": json.dumps(several[0]["caption"])}]
    for name, rows in (("a.jsonl", several), ("a.parquet", several), ("a.csv", in_cell)):
        assert captions(write(tmp_path / name, rows)) == ["a dog", "it sleeps"], name
    table = tmp_path / "a.csv"
    table.write_text("image,caption\ndog.jpg,[unclear] a dog\n")
    assert captions(table) == ["[unclear] a dog"], "no list"
    # As a spreadsheet saves it.
    table.write_bytes("\ufeffimage,caption\r\ndog.jpg,a dog\r\n\r\n".encode())
    assert captions(table) == ["a dog"]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"image": "dog.jpg", "caption": "a \\ud83d\\udc36"}\n')
    assert captions(lines) == ["a \U0001f436"], "two escapes make a character"
    rows = [{"image": "d.jpg", "caption": None}, {"image": "d.jpg", "caption": "a dog"}]
    assert captions(write(lines, rows)) == ["", "a dog"]


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
    assert rejected == [
        Rejected(f"{path} row 1", "no name of an image"),
        Rejected(str(tmp_path / "photos" / "silent.jpg"), "no caption"),
    ]


# --- splits ---------------------------------------------------------------------------------------


def many(count: int) -> list[dict[str, Any]]:
    return [{"image": f"{number}.jpg", "caption": f"number {number}"} for number in range(count)]


def splits(path: Path, seed: int) -> dict[str, str]:
    return {image.image_id: image.split for image in read(path, seed=seed)[0]}


def test_a_drawn_split_is_a_function_of_the_seed_and_the_image_alone(tmp_path: Path):
    drawn = splits(write(tmp_path / "a.csv", many(2000)), 3)
    counts = Counter(drawn.values())
    # Binomial: 1,600 +- 18, 200 +- 13 and 200 +- 13; four deviations either way.
    assert abs(counts["train"] - 1600) < 72
    assert abs(counts["val"] - 200) < 54 and abs(counts["test"] - 200) < 54
    fewer = splits(write(tmp_path / "b.jsonl", many(300)[::-1]), 3)
    assert fewer.items() <= drawn.items()
    assert splits(tmp_path / "a.csv", 4) != drawn
    # A row with a split of its own does not draw.
    given = write(tmp_path / "c.jsonl", [many(1)[0] | {"split": "test"}, *many(300)[1:]])
    assert splits(given, 3) == fewer | {"0.jpg": "test"}


def test_images_of_one_instance_draw_together(tmp_path: Path):
    rows = [row | {"instance": f"person {number // 4}"} for number, row in enumerate(many(400))]
    images, _ = read(write(tmp_path / "a.csv", rows))
    found = {(image.instance, image.split) for image in images}
    assert len(found) == 100 and len({split for _, split in found}) == 3


def test_a_split_file_replaces_a_column(tmp_path: Path):
    lists = tmp_path / "splits.tsv"
    lists.write_text("./a/dog.jpg\ttest\n")
    images, rejected = read(write(tmp_path / "pairs.csv", ROWS), split_file=lists)
    assert [(image.image_id, image.split) for image in images] == [("a/dog.jpg", "test")]
    assert rejected == [Rejected(str(tmp_path / "b/Kätzchen.jpg"), "in no split")]


# --- mistakes -------------------------------------------------------------------------------------

HEADER = "image,caption,split\n"
LINE = '{"image": "c.jpg", "caption": "a"}\n'
# What a file holds: its name, its contents, the code of the mistake and its line.
MISTAKES = [
    ("a.csv", "name,caption\n", "table.columns", 1),
    ("a.csv", HEADER + "dog.jpg,a dog\n", "table.fields", 2),
    ("a.csv", HEADER + "d.jpg,a dog, asleep,train\n", "table.fields", 2),
    ("a.csv", HEADER + 'd.jpg,"a dog,train\n', "table.malformed", 2),
    ("a.csv", HEADER + 'd.jpg,"a dog" asleep,train\n', "table.malformed", 2),
    ("a.csv", HEADER + "d.jpg,a dog,train\nc.jpg,a cat,devil\n", "split.name", 3),
    ("a.csv", HEADER + "d.jpg,a dog,train\nd.jpg,it sleeps,val\n", "dataset.two_values", 3),
    ("a.csv", HEADER + "d.jpg,a dog,\n", "split.name", 2),
    ("a.csv", (HEADER + "d.jpg,caf\xe9,train\n").encode("latin-1"), "dataset.encoding", 2),
    ("a.csv", HEADER, "dataset.no_image", None),
    ("a.tsv", "", "dataset.no_image", None),
    ("a.csv", HEADER + "d.jpg,,train\n", "dataset.no_image", None),
    ("a.jsonl", LINE + '{"image"\n', "table.malformed", 2),
    ("a.jsonl", "[" * 100_000 + "\n", "table.malformed", 1),
    ("a.jsonl", '["d.jpg", "a dog"]\n', "table.malformed", 1),
    ("a.jsonl", '{"image": "d.jpg"}\n', "table.columns", 1),
    ("a.jsonl", '{"image": "d.jpg", "caption": 3}\n', "table.value", 1),
    ("a.jsonl", '{"image": "d.jpg", "caption": ["a", 3]}\n', "table.value", 1),
    ("a.jsonl", '{"image": true, "caption": "a"}\n', "table.value", 1),
    ("a.jsonl", LINE + '{"image": "d.jpg", "caption": "\\ud83d dog"}\n', "dataset.character", 2),
    ("a.csv", HEADER + 'd.jpg,"[""dog"", ""\\udc36""]",train\n', "dataset.character", 2),
    ("a.parquet", HEADER, "table.malformed", None),
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


def test_mistakes_of_parquet_and_of_paths(tmp_path: Path):
    path = write(tmp_path / "a.parquet", [{"image": "dog.jpg", "text": "a dog"}])
    with raises("table.columns", path):
        read(path)
    rows = [{"image": f"{n}.jpg", "caption": "a", "split": ("train", "devil")[n]} for n in range(2)]
    with raises("split.name", path, line=2):
        read(write(path, rows))
    with raises("dataset.file", tmp_path / "a.csv"):
        read(tmp_path / "a.csv")
    with raises("dataset.folder", tmp_path / "photos"):
        read(write(tmp_path / "pairs.csv", ROWS), tmp_path / "photos")
