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

from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.table import read_table
from tf_dpce.errors import UserError

AWKWARD = 'a "big", brown\tdog\nasleep'
ROWS = [
    {"image": "a/dog.jpg", "caption": "a dog", "split": "train", "instance": "rex"},
    {"image": "a/dog.jpg", "caption": AWKWARD, "split": "train", "instance": "rex"},
    {"image": "a/dog.jpg", "caption": "a dog", "split": "train", "instance": "rex"},
    {"image": "b/Kätzchen.jpg", "caption": "eine Katze", "split": "val", "instance": "mia"},
]
FORMATS = ["csv", "tsv", "jsonl", "parquet"]


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


def read(*arguments, **options) -> tuple[list[Pair], list[Rejected]]:
    items = list(read_table(*arguments, **options))
    return (
        [item for item in items if isinstance(item, Pair)],
        [item for item in items if isinstance(item, Rejected)],
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_pairs(tmp_path: Path, kind: str):
    pairs, rejected = read(write(tmp_path / f"pairs.{kind}", ROWS))
    assert rejected == []
    assert [(p.image_id, p.path, p.caption, p.split, p.instance) for p in pairs] == [
        ("a/dog.jpg", tmp_path / "a/dog.jpg", "a dog", "train", "rex"),
        ("a/dog.jpg", tmp_path / "a/dog.jpg", AWKWARD, "train", "rex"),
        ("b/Kätzchen.jpg", tmp_path / "b/Kätzchen.jpg", "eine Katze", "val", "mia"),
    ], "the repeated caption is there once"


def test_a_line_of_captions_may_hold_several_of_them(tmp_path: Path):
    rows = [{"image": "dog.jpg", "caption": ["a dog", "it sleeps", "a dog"]}]
    in_cell = [{"image": "dog.jpg", "caption": json.dumps(rows[0]["caption"])}]
    for name, table in [("a.jsonl", rows), ("a.parquet", rows), ("a.csv", in_cell)]:
        pairs, _ = read(write(tmp_path / name, table))
        assert [pair.caption for pair in pairs] == ["a dog", "it sleeps"], name


def test_a_sentence_that_opens_with_a_bracket_is_a_sentence(tmp_path: Path):
    rows = [{"image": "dog.jpg", "caption": "[unclear] a dog"}]
    pairs, _ = read(write(tmp_path / "a.csv", rows))
    assert pairs[0].caption == "[unclear] a dog"


def test_a_file_saved_by_a_spreadsheet_is_read(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_bytes("\ufeffimage,caption\r\ndog.jpg,a dog\r\n\r\n".encode())
    pairs, _ = read(path)
    assert [(pair.image_id, pair.caption) for pair in pairs] == [("dog.jpg", "a dog")]


def test_images_may_lie_in_another_folder(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    pairs, _ = read(write(tmp_path / "pairs.csv", ROWS), tmp_path / "photos")
    assert pairs[0].path == tmp_path / "photos" / "a/dog.jpg"


def test_a_pair_of_escapes_is_a_character(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"image": "dog.jpg", "caption": "a \\ud83d\\udc36"}\n')
    assert read(path)[0][0].caption == "a \U0001f436"


def test_the_pairs_of_a_image_share_its_name_and_path(tmp_path: Path):
    # Millions of captions are held at a time, and a path takes more memory than a caption.
    rows = [{"image": "a/dog.jpg", "caption": f"number {n}", "split": "train"} for n in range(3)]
    pairs, _ = read(write(tmp_path / "a.csv", rows))
    for attribute in ("image_id", "path", "split", "instance"):
        assert len({id(getattr(pair, attribute)) for pair in pairs}) == 1
    assert not hasattr(pairs[0], "__dict__")


def test_whole_numbers_make_instances(tmp_path: Path):
    rows = [{"image": "dog.jpg", "caption": "a dog", "instance": 7}]
    assert read(write(tmp_path / "a.parquet", rows))[0][0].instance == "7"


# --- splits ---------------------------------------------------------------------------------------


def many(count: int) -> list[dict[str, Any]]:
    return [{"image": f"{place}.jpg", "caption": f"number {place}"} for place in range(count)]


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
    rows = [row | {"instance": f"person {place // 4}"} for place, row in enumerate(many(400))]
    pairs, _ = read(write(tmp_path / "a.csv", rows))
    splits = {(pair.instance, pair.split) for pair in pairs}
    assert len(splits) == 100 and len({split for _, split in splits}) == 3


def test_a_split_file_goes_before_a_column(tmp_path: Path):
    lists = tmp_path / "splits.tsv"
    lists.write_text("a/dog.jpg\ttest\nsilent.jpg\tval\n")
    pairs, rejected = read(write(tmp_path / "pairs.csv", ROWS * 2), split_file=lists)
    assert {(pair.image_id, pair.split) for pair in pairs} == {("a/dog.jpg", "test")}
    assert rejected == [
        Rejected(str(tmp_path / "b/Kätzchen.jpg"), "in no split"),
        Rejected(str(tmp_path / "silent.jpg"), "no caption"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dog.jpg\ttrain\ndog.jpg\tval\n",
            "line 2: dog.jpg is already in the split 'train': keep it in one",
        ),
        ("dog.jpg train\n", "line 1 is not image<TAB>split but 'dog.jpg train': mend the"),
        ("dog.jpg\tdev\n", "line 1: split is 'dev': it must be one of train, val, test"),
        ("\n", "has no line"),
    ],
)
def test_a_bad_split_file(tmp_path: Path, text: str, message: str):
    lists = tmp_path / "splits.tsv"
    lists.write_text(text)
    with pytest.raises(UserError, match=f"splits.tsv {message}"):
        read(write(tmp_path / "pairs.csv", ROWS), split_file=lists)


# --- mistakes -------------------------------------------------------------------------------------

HEADER = "image,caption,split\n"
BAD_TABLES = {
    "no column": (
        "a.csv",
        "image,caption\n",
        "line 1 has no column 'image', it has image, caption: give one",
    ),
    "too few fields": (
        "a.csv",
        HEADER + "dog.jpg,a dog\n",
        "line 2 has 2 fields, the header 3: put quotes around .* ','",
    ),
    "too many fields": ("a.csv", HEADER + "d.jpg,a dog, asleep,train\n", "line 2 has 4 fields"),
    "open quote": ("a.csv", HEADER + 'd.jpg,"a dog,train\n', "line 2 is malformed, .*: mend"),
    "unknown split": ("a.csv", HEADER + "d.jpg,a dog,train\nc.jpg,a cat,dev\n", "line 3: split"),
    "no split": ("a.csv", HEADER + "d.jpg,a dog,\n", "line 2: split is ''"),
    "not UTF-8": ("a.csv", (HEADER + "d.jpg,caf\xe9,train\n").encode("latin-1"), "line 2 is not"),
    "no row": ("a.csv", HEADER, "has no usable row"),
    "nothing": ("a.tsv", "", "has no usable row"),
    "empty captions": ("a.csv", HEADER + "d.jpg,,train\n", "has no usable row"),
    "not JSON": (
        "a.jsonl",
        '{"image": "d.jpg", "caption": "a"}\n{"image"\n',
        "line 2 is not JSON, .*: mend",
    ),
    "too deep": ("a.jsonl", "[" * 100_000 + "\n", "line 1 is not JSON"),
    "no object": ("a.jsonl", '["d.jpg", "a dog"]\n', "line 1 is no JSON object"),
    "no caption": ("a.jsonl", '{"image": "d.jpg"}\n', "line 1 has no column 'caption'"),
    "number": ("a.jsonl", '{"image": "d.jpg", "caption": 3}\n', "line 1: caption is 3"),
    "numbers": ("a.jsonl", '{"image": "d.jpg", "caption": ["a", 3]}\n', "line 1: caption is"),
    "image": ("a.jsonl", '{"image": ["d.jpg"], "caption": "a"}\n', "line 1: image is"),
    "half a character": (
        "a.jsonl",
        '{"image": "c.jpg", "caption": "a"}\n{"image": "d.jpg", "caption": "a \\ud83d dog"}\n',
        r"line 2: caption has half a character, \\ud83d: mend the line",
    ),
    "in a list": (
        "a.csv",
        HEADER + 'd.jpg,"[""a dog"", ""\\udc36""]",train\n',
        r"line 2: caption has half a character, \\udc36",
    ),
    "in a name": (
        "a.jsonl",
        '{"image": "\\ud83d.jpg", "caption": "a"}\n',
        r"line 1: image has half a character, \\ud83d",
    ),
    "not Parquet": ("a.parquet", HEADER, "a.parquet is no Parquet file"),
    "unknown kind": ("a.xlsx", HEADER, "a.xlsx is no table: .*.csv, .tsv, .jsonl, .parquet"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_mistake_is_one_line_that_names_the_place(tmp_path: Path, name: str):
    file, contents, message = BAD_TABLES[name]
    path = tmp_path / file
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_parquet_file_without_the_column(tmp_path: Path):
    path = write(tmp_path / "a.parquet", [{"image": "dog.jpg", "text": "a dog"}])
    with pytest.raises(UserError, match="a.parquet has no column 'caption', it has image, text"):
        read(path)


def test_a_missing_table_and_a_missing_folder(tmp_path: Path):
    with pytest.raises(UserError, match="a.csv is not a file"):
        read(tmp_path / "a.csv")
    with pytest.raises(UserError, match="photos is not a folder.*--images"):
        read(write(tmp_path / "pairs.csv", ROWS), tmp_path / "photos")


def test_a_row_without_a_image_is_rejected_and_the_rest_kept(tmp_path: Path):
    rows = [{"image": None, "caption": "of nothing"}, {"image": "d.jpg", "caption": "a dog"}]
    path = write(tmp_path / "a.parquet", rows)
    pairs, rejected = read(path)
    assert rejected == [Rejected(f"{path} row 1", "no name of an image")]
    assert [(pair.caption, pair.origin) for pair in pairs] == [("a dog", f"{path} row 2")]


def test_a_missing_caption_is_an_empty_one(tmp_path: Path):
    rows = [{"image": "d.jpg", "caption": None}, {"image": "d.jpg", "caption": "a dog"}]
    pairs, _ = read(write(tmp_path / "a.jsonl", rows))
    assert [pair.caption for pair in pairs] == ["", "a dog"]
