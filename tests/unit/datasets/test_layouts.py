"""What a folder, a file or a pattern is taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.errors import raises
from tests.samples import write_coco, write_flickr8k, write_flickr30k, write_images, write_json
from tf_dpce.data.manifest import REJECTED_FILE
from tf_dpce.datasets.layouts import recognise

HEADER = "image,caption\n"


def build(root: Path, *names: str, **contents: str) -> Path:
    """Writes empty files, and such whose contents matter; `_` in their names stands for a dot."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, text in contents.items():
        (root / name.replace("_", ".")).write_text(text)
    return root


@pytest.mark.parametrize(
    ("layout", "source", "options"),
    [
        (lambda r: write_flickr8k(r), "flickr8k", {"root": ""}),
        (lambda r: build(r, "Images/a.jpg", captions_txt=HEADER), "flickr8k", {"root": ""}),
        # Beside Flickr8k, Karpathy's file is a form of its split, and a table a copy.
        (
            lambda r: build(
                *(r, "Images/a.jpg", "dataset_flickr8k.json"),
                **{"captions_txt": HEADER, "captions_csv": HEADER},
            ),
            *("flickr8k", {"root": ""}),
        ),
        (lambda r: write_flickr30k(r, ["a.jpg"]), "flickr30k", {"root": ""}),
        (
            lambda r: build(r, "flickr30k_images/a.jpg", results_csv="image_name| comment_number|"),
            *("flickr30k", {"root": ""}),
        ),
        (lambda r: write_coco(r), "mscoco", {"root": ""}),
        (lambda r: build(r, "annotations/captions_val2017.json"), "coco", {"root": ""}),
        (lambda r: build(r, "captions.json", "images/a.jpg"), "coco", {"root": ""}),
        (
            lambda r: build(r, "dataset_coco.json", "val2014/a.jpg"),
            *("karpathy", {"root": "", "annotations": "dataset_coco.json"}),
        ),
        (
            lambda r: build(r, "dataset_flickr30k.json", "flickr30k_images/a.jpg"),
            *("karpathy", {"root": "flickr30k_images", "annotations": "dataset_flickr30k.json"}),
        ),
        (lambda r: build(r, "imgs/a.jpg", "reid_raw.json"), "cuhk_pedes", {"root": ""}),
        (lambda r: build(r, "train/metadata.csv", "train/a.jpg"), "table", {"annotations": ""}),
        (lambda r: build(r, "metadata.jsonl", "a.jpg"), "table", {"annotations": ""}),
        # Lists that img2dataset leaves beside its output are no tables.
        (lambda r: build(r, "00000.tar", "00000.parquet", "0_stats.json"), "shards", {"root": ""}),
        (lambda r: build(r, "val/0.tar.gz", "train/0.tar.gz"), "shards", {"root": ""}),
        (
            lambda r: build(r, "00000/000.jpg", "00000/000.txt", "00000.parquet"),
            *("folder", {"root": ""}),
        ),
        (lambda r: build(r, "x/y/a.PNG", "x/y/a.json"), "folder", {"root": ""}),
        (lambda r: build(r, "a.jpg", "pairs.csv"), "table", {"annotations": "pairs.csv"}),
        (
            lambda r: build(r, "images/a.jpg", "pairs.tsv", "notes.txt"),
            *("table", {"annotations": "pairs.tsv", "images": "images"}),
        ),
        # A text is a table if it begins like one; in `images` it is none of Kaggle's.
        (
            lambda r: build(r, "images/a.jpg", "README.txt", captions_txt=HEADER),
            *("table", {"annotations": "captions.txt", "images": "images"}),
        ),
        (lambda r: build(r, "data/train-0.parquet", "README.md"), "table", {"annotations": ""}),
        (lambda r: build(r, "a.parquet", "b.parquet"), "table", {"annotations": ""}),
    ],
)
def test_a_folder(tmp_path: Path, layout, source: str, options: dict[str, str]):
    root = tmp_path / "data"
    layout(root)
    found = recognise(root)
    assert found.source == source
    assert found.options == {name: root / path for name, path in options.items()}


def test_a_file_or_a_pattern(tmp_path: Path):
    build(tmp_path, "pairs.csv", "a.tar", "b.parquet", "images/dataset_x.json")
    write_json(tmp_path / "coco.json", {"images": []})
    write_json(tmp_path / "list.json", [{"image": "a.jpg"}])
    for name, source, options in (
        ("pairs.csv", "table", {"annotations": "pairs.csv"}),
        ("*.parquet", "table", {"annotations": "*.parquet"}),
        ("list.json", "table", {"annotations": "list.json"}),
        ("coco.json", "coco", {"annotations": "coco.json"}),
        ("a.tar", "shards", {"root": "a.tar"}),
        ("{00000..00010}.tar", "shards", {"root": "{00000..00010}.tar"}),
        (
            "images/dataset_x.json",
            *("karpathy", {"root": "images", "annotations": "images/dataset_x.json"}),
        ),
    ):
        found = recognise(tmp_path / name)
        assert found.source == source, name
        assert found.options == {option: tmp_path / path for option, path in options.items()}


def test_nothing_or_two_layouts_are_a_mistake(tmp_path: Path):
    images = write_images(tmp_path / "images", ["a.jpg"])
    two = build(tmp_path / "two", "0.tar", "metadata.csv")
    tables = build(tmp_path / "tables", "a.csv", "b.csv")
    # What `prepare` wrote is no data set, nor a table beside one.
    prepared = build(tmp_path / "prepared", REJECTED_FILE, "train-00000.tfrecord")
    build(images, REJECTED_FILE)
    for path in (images, prepared, tables, tmp_path / "gone", tmp_path / "*.csv"):
        with raises("source.none", path):
            recognise(path)
    with raises("source.several", two):
        recognise(two)
    coco = write_coco(tmp_path / "coco")
    build(coco, "dataset_coco.json")
    with raises("source.several", coco) as caught:
        recognise(coco)
    assert "mscoco" in str(caught.value) and "karpathy" in str(caught.value)
