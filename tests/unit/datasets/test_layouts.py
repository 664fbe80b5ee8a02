"""What a folder, a file or a pattern is taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.errors import raises
from tf_dpce.data.manifest import REJECTED_FILE
from tf_dpce.datasets.layouts import recognise

# Beginnings of files, where they matter.
BEGINNINGS = {
    **dict.fromkeys(("captions.txt", "captions.csv"), "image,caption\n"),
    "results.csv": "image_name| comment_number| comment\n",
    **{"coco.json": '{"images": []}', "list.json": '[{"image": "a.jpg"}]'},
}

# Files, the source that they are, and the options that follow.
LAYOUTS = [
    ("Flicker8k_Dataset/a.jpg Flickr8k_text/Flickr8k.token.txt", "flickr8k", "root"),
    ("Images/a.jpg captions.txt", "flickr8k", "root"),
    # Beside Flickr8k, Karpathy's file is a form of its split, and a table a copy.
    ("Images/a.jpg captions.txt captions.csv dataset_flickr8k.json", "flickr8k", "root"),
    ("flickr30k-images/a.jpg results_20130124.token", "flickr30k", "root"),
    ("flickr30k_images/a.jpg results.csv", "flickr30k", "root"),
    ("train2014/a.jpg annotations/captions_train2014.json", "mscoco", "root"),
    ("train2017/a.jpg annotations/captions_train2017.json", "coco", "root"),
    ("images/a.jpg captions.json", "coco", "root"),
    ("val2014/a.jpg dataset_coco.json", "karpathy", "root annotations=dataset_coco.json"),
    (
        "flickr30k_images/a.jpg dataset_flickr30k.json",
        *("karpathy", "root=flickr30k_images annotations=dataset_flickr30k.json"),
    ),
    ("imgs/a.jpg reid_raw.json", "cuhk_pedes", "root"),
    ("train/a.jpg train/metadata.csv", "table", "annotations"),
    ("a.jpg metadata.jsonl", "table", "annotations"),
    # Lists that img2dataset leaves beside its output are no tables.
    ("00000.tar 00000.parquet 00000_stats.json", "shards", "root"),
    ("00000/000.jpg 00000/000.txt 00000.parquet", "folder", "root"),
    ("val/0.tar.gz train/0.tar.gz", "shards", "root"),
    ("x/y/a.PNG x/y/a.json", "folder", "root"),
    # Nor is what `prepare` wrote.
    (f"a.jpg pairs.csv {REJECTED_FILE}", "table", "annotations=pairs.csv"),
    ("images/a.jpg pairs.tsv notes.txt", "table", "annotations=pairs.tsv images=images"),
    # A text is a table if it begins like one; in `images` it is none of Kaggle's.
    ("images/a.jpg captions.txt", "table", "annotations=captions.txt images=images"),
    ("data/train-0.parquet README.md", "table", "annotations"),
    ("a.parquet b.parquet", "table", "annotations"),
    ("train.csv dev.csv test.csv images/a.jpg", "table", "annotations images=images"),
]


def build(root: Path, names: str) -> Path:
    for path in map(root.joinpath, names.split()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BEGINNINGS.get(path.name, ""))
    return root


@pytest.mark.parametrize(("files", "source", "options"), LAYOUTS)
def test_a_folder(tmp_path: Path, files: str, source: str, options: str):
    root = build(tmp_path / "data", files)
    found = recognise(root)
    places = (option.partition("=") for option in options.split())
    assert (found.source, found.options) == (source, {n: root / path for n, _, path in places})


def test_a_file_or_a_pattern(tmp_path: Path):
    build(tmp_path, "pairs.csv a.tar b.parquet dataset_x.json coco.json list.json")
    for name, source in (
        *(("pairs.csv", "table"), ("*.parquet", "table"), ("list.json", "table")),
        *(("coco.json", "coco"), ("a.tar", "shards"), ("{00000..00010}.tar", "shards")),
    ):
        found = recognise(tmp_path / name)
        option = "root" if source == "shards" else "annotations"
        assert (found.source, found.options) == (source, {option: tmp_path / name})
    path = tmp_path / "dataset_x.json"
    found = recognise(path)
    assert found.source == "karpathy"
    assert found.options == {"root": tmp_path, "annotations": path}


def test_nothing_or_two_layouts_are_a_mistake(tmp_path: Path):
    for name, files in (
        *(("images", "a.jpg"), ("tables", "a.csv b.csv")),
        ("prepared", f"{REJECTED_FILE} train-00000.tfrecord manifest.json vocabulary.txt"),
    ):
        root = build(tmp_path / name, files)
        with raises("source.none", root):
            recognise(root)
    for name in ("gone", "*.csv"):
        with raises("source.none", tmp_path / name):
            recognise(tmp_path / name)
    for name, files, found in (
        ("general", "0.tar metadata.csv", ("shards", "table")),
        ("coco", "annotations/captions_train2014.json dataset_x.json", ("mscoco", "karpathy")),
    ):
        root = build(tmp_path / name, files)
        with raises("source.several", root) as caught:
            recognise(root)
        assert all(f"({source})" in str(caught.value) for source in found)
