"""Folders of images whose table tools write: imagefolder, and img2dataset's Parquet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow
from pyarrow import parquet

from tests.samples import write_images
from tf_dpce.datasets.captions_beside import NOT_DOWNLOADED
from tf_dpce.datasets.listing import ADDRESS, Image, Rejected, gather
from tf_dpce.datasets.table import read_table


def test_an_imagefolder_has_a_table_in_each_split(tmp_path: Path):
    for split, count in (("train", 4), ("validation", 2), ("test", 1)):
        names = [f"{number}.jpg" for number in range(count)]
        write_images(tmp_path / split, names)
        rows = [f"{name},a dog {split},{name} again\n" for name in names]
        rows += [f"https://x.org/{split}.jpg,a cat,\n"]
        header = "file_name,caption_0,caption_1\n"
        (tmp_path / split / "metadata.csv").write_text("".join([header, *rows]))
    name = "validation/1.jpg"
    captions = ["a dog validation", "1.jpg again"]
    for place in (tmp_path, tmp_path / "*" / "metadata.csv"):
        images, rejected = gather(read_table(place))
        # Each folder has a 0.jpg of its own.
        assert Counter(image.split for image in images) == {"train": 4, "val": 2, "test": 1}
        assert Image(name, tmp_path / name, captions, "val") in images
        assert [item.reason for item in rejected] == [ADDRESS] * 3


def test_a_column_of_splits_counts_and_one_table_of_a_folder(tmp_path: Path, caplog):
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    rows = "a.jpg,train,a dog\nb.jpg,dev,a cat\nc.jpg,test,a cow\n"
    (tmp_path / "metadata.csv").write_text(f"file_name,split,text\n{rows}")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "another"}\n')
    images, rejected = gather(read_table(tmp_path))
    assert [(image.split, *image.captions) for image in images] == [
        *(("train", "a dog"), ("val", "a cat"), ("test", "a cow"))
    ]
    assert rejected == [] and "metadata.jsonl is left out" in caplog.text


def test_tables_that_are_named_after_splits_are_one(tmp_path: Path):
    for split in ("train", "dev", "test"):
        write_images(tmp_path / "images", [f"{split}.jpg"])
        (tmp_path / f"{split}.csv").write_text(f"image,caption\n{split}.jpg,a dog {split}\n")
    images, rejected = gather(read_table(tmp_path, tmp_path / "images"))
    assert [(image.image_id, image.split) for image in images] == [
        *(("dev.jpg", "val"), ("test.jpg", "test"), ("train.jpg", "train"))
    ]
    assert rejected == []


def test_the_parquet_of_img2dataset_names_keys_and_what_failed(tmp_path: Path):
    write_images(tmp_path / "00000", [f"{number:09d}.jpg" for number in range(4)])
    (tmp_path / "00000" / "000000001.txt").write_text("no image")
    rows = [
        {"url": "https://x/a", "key": f"{number:09d}", "status": status, "caption": f"dog {number}"}
        for number, status in enumerate(["success"] * 4 + ["failed_to_download"])
    ]
    path = tmp_path / "00000.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    for places in ((path,), (path, tmp_path / "00000")):
        images, rejected = gather(read_table(*places))
        assert {image.path.name: image.captions for image in images} == {
            f"{number:09d}.jpg": [f"dog {number}"] for number in range(4)
        }
        assert all(image.path.is_file() for image in images)
        assert rejected == [Rejected(f"{path} row 5", NOT_DOWNLOADED)]
    # In a table of another kind a status is nobody's business.
    path = tmp_path / "own.parquet"
    own = [{"image": "00000/000000000.jpg", "caption": "a dog", "status": "draft"}]
    parquet.write_table(pyarrow.Table.from_pylist(own), path)
    assert len(gather(read_table(path))[0]) == 1
