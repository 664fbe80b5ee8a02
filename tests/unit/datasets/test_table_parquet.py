"""Parquet as Hugging Face stores it: images inside, several files, captions in lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.errors import raises
from tests.unit.datasets.tables import captions, read, write
from tf_dpce.datasets import extracted
from tf_dpce.datasets.cells import NOT_UTF8
from tf_dpce.datasets.columns import ColumnFinder
from tf_dpce.datasets.extracted import ExtractedImages
from tf_dpce.datasets.listing import Rejected
from tf_dpce.datasets.parquet import read_parquet

JPEG = b"\xff\xd8\xff\xe0"


def image_rows(count: int, size: int = 100) -> list[dict[str, Any]]:
    return [
        {
            "image": {"bytes": JPEG + bytes([n]) * size, "path": f"p{n}.jpg"},
            "caption": [f"number {n}", f"again {n}"],
        }
        for n in range(count)
    ]


def test_images_inside_become_files(tmp_path: Path):
    path = write(tmp_path / "a.parquet", image_rows(5))
    for _ in range(2):
        images, rejected = read(path, extracted=ExtractedImages(tmp_path / "out" / "images"))
        assert rejected == []
        assert [(image.image_id, image.captions) for image in images] == [
            (f"p{n}.jpg", [f"number {n}", f"again {n}"]) for n in range(5)
        ]
        for n, image in enumerate(images):
            assert image.path == tmp_path / "out" / "images" / f"p{n}.jpg"
            assert image.path.read_bytes() == JPEG + bytes([n]) * 100
    with raises("table.bytes", path, 1):
        read(path)


def test_images_without_a_name_are_named_after_their_rows(tmp_path: Path):
    rows = [{"image": row["image"]["bytes"], "caption": "a"} for row in image_rows(3)]
    nameless = [{"image": {"bytes": row["image"], "path": None}, "caption": "a"} for row in rows]
    for several in (rows, nameless):
        path = write(tmp_path / "a.parquet", several)
        images, _ = read(path, extracted=ExtractedImages(tmp_path / "images"))
        assert [image.image_id for image in images] == [f"{n:07d}.jpg" for n in (1, 2, 3)]


def test_rows_that_hold_the_same_image_are_captions_of_one(tmp_path: Path):
    first, second = image_rows(2)
    other = {"image": second["image"] | {"path": "p0.jpg"}, "caption": ["of another image"]}
    path = write(tmp_path / "a.parquet", [first, first | {"caption": ["more"]}, other])
    images, _ = read(path, extracted=ExtractedImages(tmp_path / "images"))
    assert {image.image_id: image.captions for image in images} == {
        "p0.jpg": ["number 0", "again 0", "more"],
        "p0-2.jpg": ["of another image"],
    }


@pytest.mark.parametrize(
    "value",
    [
        ["a dog", "it sleeps"],
        [["a dog"], ["it sleeps"]],
        [{"raw": "a dog", "sentid": 1}, {"raw": "it sleeps", "sentid": 2}],
        {"raw": ["a dog", "it sleeps"], "tokens": ["no"]},
        pyarrow.scalar(["a dog", None, "it sleeps"], pyarrow.large_list(pyarrow.large_string())),
    ],
)
def test_types_of_captions(tmp_path: Path, value: Any):
    image = pyarrow.array([{"bytes": None, "path": "d.jpg"}])
    table = pyarrow.table({"image": image, "caption": pyarrow.array([value])})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert captions(tmp_path / "a.parquet") == ["a dog", "it sleeps"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["d.jpg"], "d.jpg"),
        ([b"d.jpg"], "d.jpg"),
        ([7.0], "7"),
        (pyarrow.array(["d.jpg"]).dictionary_encode(), "d.jpg"),
    ],
)
def test_types_of_names(tmp_path: Path, names: Any, expected: str):
    table = pyarrow.table({"image": names, "caption": ["a dog"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    ((image,), _) = read(tmp_path / "a.parquet")
    assert image.image_id == expected


def test_a_folder_or_a_pattern_is_one_table(tmp_path: Path):
    rows = image_rows(9)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("no table")
    parts = {"train-00000-of-00002": rows[:4], "train-00001-of-00002": rows[4:6]}
    for name, part in (parts | {"dev": rows[6:8], "test": rows[8:]}).items():
        write(tmp_path / "data" / f"{name}.parquet", part)
    splits = ["train"] * 6 + ["val"] * 2 + ["test"]
    expected = {f"p{n}.jpg": split for n, split in enumerate(splits)}
    for source in (tmp_path / "data", tmp_path, tmp_path / "data" / "*.parquet"):
        images, rejected = read(source, extracted=ExtractedImages(tmp_path / "out"))
        assert {image.image_id: image.split for image in images} == expected and rejected == []
    # Names of one split alone say nothing.
    images, _ = read(tmp_path / "data" / "train-*", extracted=ExtractedImages(tmp_path / "out"))
    assert {image.split for image in images} == {"train", "val", "test"}


def test_room_is_checked_before_the_first_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.parquet", image_rows(6, 50_000))
    usage = type("Usage", (), {"free": path.stat().st_size - 1})
    monkeypatch.setattr(extracted.shutil, "disk_usage", lambda _: usage)
    with raises("extracted.room", tmp_path / "out" / "images"):
        read(path, extracted=ExtractedImages(tmp_path / "out" / "images"))
    assert not (tmp_path / "out").exists()


def test_memory_holds_a_part_of_the_file(tmp_path: Path):
    path = tmp_path / "a.parquet"
    # 40 row groups of a megabyte.
    parquet.write_table(pyarrow.Table.from_pylist(image_rows(200, 200_000)), path, row_group_size=5)
    before = pyarrow.total_allocated_bytes()
    rows = read_parquet(path, ColumnFinder())
    sizes = [pyarrow.total_allocated_bytes() - before for _ in rows]
    assert len(sizes) == 200 and max(sizes) < 200 * 200_000 / 3


def test_a_text_that_is_not_utf8_costs_its_row(tmp_path: Path):
    path = tmp_path / "a.parquet"
    texts = pyarrow.array([b"a caf\xe9", b"a cat"]).view("utf8")
    parquet.write_table(pyarrow.table({"image": ["a.jpg", "b.jpg"], "caption": texts}), path)
    images, rejected = read(path)
    assert [image.image_id for image in images] == ["b.jpg"]
    assert rejected == [Rejected(f"{path} row 1", NOT_UTF8)]
