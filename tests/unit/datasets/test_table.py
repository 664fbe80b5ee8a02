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
from tests.samples import divide
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.table import read_table

AWKWARD = 'a "big", brown\tdog\nasleep'
ROWS = [
    {"image": "a/dog.jpg", "caption": "a dog", "split": "train", "instance": "rex"},
    {"image": "a/dog.jpg", "caption": AWKWARD, "split": "train", "instance": "rex"},
    {"image": "a/dog.jpg", "caption": "a dog", "split": "train", "instance": "rex"},
    {"image": "b/Kätzchen.jpg", "caption": "eine Katze", "split": "val", "instance": "mia"},
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


def read(*arguments: Any, **options: Any) -> tuple[list[Pair], list[Rejected]]:
    return divide(read_table(*arguments, **options))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, kind: str):
    pairs, rejected = read(write(tmp_path / f"pairs.{kind}", ROWS))
    assert rejected == []
    assert pairs == [
        Pair("a/dog.jpg", tmp_path / "a/dog.jpg", "a dog", "train", "rex"),
        Pair("a/dog.jpg", tmp_path / "a/dog.jpg", AWKWARD, "train", "rex"),
        Pair("b/Kätzchen.jpg", tmp_path / "b/Kätzchen.jpg", "eine Katze", "val", "mia"),
    ], "the repeated caption is there once"


def test_a_row_of_captions_may_hold_several_of_them(tmp_path: Path):
    rows = [{"image": "dog.jpg", "caption": ["a dog", "it sleeps", "a dog"]}]
    in_cell = [{"image": "dog.jpg", "caption": json.dumps(rows[0]["caption"])}]
    for name, table in [("a.jsonl", rows), ("a.parquet", rows), ("a.csv", in_cell)]:
        pairs, _ = read(write(tmp_path / name, table))
        assert [pair.caption for pair in pairs] == ["a dog", "it sleeps"], name


def test_what_captions_and_cells_may_look_like(tmp_path: Path):
    table = tmp_path / "a.csv"
    table.write_text("image,caption\ndog.jpg,[unclear] a dog\n")
    assert read(table)[0][0].caption == "[unclear] a dog", "no list"
    # As a spreadsheet saves it.
    table.write_bytes("\ufeffimage,caption\r\ndog.jpg,a dog\r\n\r\n".encode())
    assert [(pair.image_id, pair.caption) for pair in read(table)[0]] == [("dog.jpg", "a dog")]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"image": "dog.jpg", "caption": "a \\ud83d\\udc36"}\n')
    assert read(lines)[0][0].caption == "a \U0001f436", "two escapes make a character"
    rows = [{"image": "dog.jpg", "caption": "a dog", "instance": 7}]
    assert read(write(tmp_path / "a.parquet", rows))[0][0].instance == "7"
    rows = [{"image": "d.jpg", "caption": None}, {"image": "d.jpg", "caption": "a dog"}]
    assert [pair.caption for pair in read(write(lines, rows))[0]] == ["", "a dog"]


def test_images_may_lie_in_another_folder(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    pairs, _ = read(write(tmp_path / "pairs.csv", ROWS), tmp_path / "photos")
    assert pairs[0].path == tmp_path / "photos" / "a/dog.jpg"


def test_the_pairs_of_an_image_share_its_name_and_path(tmp_path: Path):
    # Millions of captions are held at a time, and a path takes more memory than a caption.
    rows = [{"image": "a/dog.jpg", "caption": f"number {n}", "split": "train"} for n in range(3)]
    pairs, _ = read(write(tmp_path / "a.csv", rows))
    for attribute in ("image_id", "path", "split", "instance"):
        assert len({id(getattr(pair, attribute)) for pair in pairs}) == 1
    assert not hasattr(pairs[0], "__dict__")


def test_a_row_without_an_image_is_rejected_and_the_rest_read(tmp_path: Path):
    rows = [{"image": None, "caption": "of nothing"}, {"image": "d.jpg", "caption": "a dog"}]
    path = write(tmp_path / "a.parquet", rows)
    pairs, rejected = read(path)
    assert rejected == [Rejected(f"{path} row 1", "no name of an image")]
    assert [(pair.caption, pair.origin.line) for pair in pairs] == [("a dog", 2)]


# --- splits ---------------------------------------------------------------------------------------


def many(count: int) -> list[dict[str, Any]]:
    return [{"image": f"{number}.jpg", "caption": f"number {number}"} for number in range(count)]


def test_without_a_split_each_image_draws_its_own(tmp_path: Path):
    pairs, _ = read(write(tmp_path / "a.csv", many(2000)), seed=3)
    counts = Counter(pair.split for pair in pairs)
    # Binomial: 1,600 +- 18, 200 +- 13 and 200 +- 13; four deviations either way.
    assert abs(counts["train"] - 1600) < 72
    assert abs(counts["val"] - 200) < 54 and abs(counts["test"] - 200) < 54


def test_a_drawn_split_is_a_function_of_the_seed_and_the_image_alone(tmp_path: Path):
    all_of_them, _ = read(write(tmp_path / "a.csv", many(200)), seed=3)
    backwards, _ = read(write(tmp_path / "b.jsonl", many(300)[::-1]), seed=3)
    other_seed, _ = read(write(tmp_path / "a.csv", many(200)), seed=4)
    splits = {pair.image_id: pair.split for pair in backwards}
    assert all(splits[pair.image_id] == pair.split for pair in all_of_them)
    assert [pair.split for pair in other_seed] != [pair.split for pair in all_of_them]


def test_images_of_one_instance_draw_together(tmp_path: Path):
    rows = [row | {"instance": f"person {number // 4}"} for number, row in enumerate(many(400))]
    pairs, _ = read(write(tmp_path / "a.csv", rows))
    splits = {(pair.instance, pair.split) for pair in pairs}
    assert len(splits) == 100 and len({split for _, split in splits}) == 3


def test_a_split_file_replaces_a_column(tmp_path: Path):
    lists = tmp_path / "splits.tsv"
    lists.write_text("a/dog.jpg\ttest\nsilent.jpg\tval\n")
    pairs, rejected = read(write(tmp_path / "pairs.csv", ROWS * 2), split_file=lists)
    assert {(pair.image_id, pair.split) for pair in pairs} == {("a/dog.jpg", "test")}
    assert rejected == [
        Rejected(str(tmp_path / "b/Kätzchen.jpg"), "in no split"),
        Rejected(str(tmp_path / "silent.jpg"), "no caption"),
    ]


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
    ("a.csv", HEADER + "d.jpg,a dog,train\nc.jpg,a cat,dev\n", "split.name", 3),
    ("a.csv", HEADER + "d.jpg,a dog,\n", "split.name", 2),
    ("a.csv", (HEADER + "d.jpg,caf\xe9,train\n").encode("latin-1"), "dataset.encoding", 2),
    ("a.csv", HEADER, "table.no_row", None),
    ("a.tsv", "", "table.no_row", None),
    ("a.csv", HEADER + "d.jpg,,train\n", "table.no_row", None),
    ("a.jsonl", LINE + '{"image"\n', "table.malformed", 2),
    ("a.jsonl", "[" * 100_000 + "\n", "table.malformed", 1),
    ("a.jsonl", '["d.jpg", "a dog"]\n', "table.malformed", 1),
    ("a.jsonl", '{"image": "d.jpg"}\n', "table.columns", 1),
    ("a.jsonl", '{"image": "d.jpg", "caption": 3}\n', "table.value", 1),
    ("a.jsonl", '{"image": "d.jpg", "caption": ["a", 3]}\n', "table.value", 1),
    ("a.jsonl", '{"image": ["d.jpg"], "caption": "a"}\n', "table.value", 1),
    ("a.jsonl", '{"image": true, "caption": "a"}\n', "table.value", 1),
    ("a.jsonl", LINE + '{"image": "d.jpg", "caption": "\\ud83d dog"}\n', "dataset.character", 2),
    ("a.csv", HEADER + 'd.jpg,"[""dog"", ""\\udc36""]",train\n', "dataset.character", 2),
    ("a.jsonl", '{"image": "\\ud83d.jpg", "caption": "a"}\n', "dataset.character", 1),
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
    path = write(path, [{"image": "a.jpg", "caption": "a"}, {"image": "dog.jpg", "caption": None}])
    parquet.write_table(parquet.read_table(path).append_column("split", [["train", "dev"]]), path)
    with raises("split.name", path, line=2):
        read(path)
    with raises("dataset.file", tmp_path / "a.csv"):
        read(tmp_path / "a.csv")
    with raises("dataset.folder", tmp_path / "photos"):
        read(write(tmp_path / "pairs.csv", ROWS), tmp_path / "photos")
