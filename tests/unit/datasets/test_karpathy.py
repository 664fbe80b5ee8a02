"""Karpathy's files: three data sets in one format, and what can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.errors import raises
from tests.samples import COCO_SPLITS, divide, karpathy_coco, karpathy_image, write_json
from tf_dpce.datasets.karpathy import karpathy_dataset, load_karpathy, read_karpathy
from tf_dpce.datasets.pair import Pair, Rejected, group_pairs

IMAGE = karpathy_image("a.jpg", "train")


def read(folder: Path, *images: dict[str, Any]) -> list[Pair | Rejected]:
    path = write_json(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})
    return list(read_karpathy(load_karpathy(path), folder))


def test_flickr_images_lie_in_the_folder_itself(tmp_path: Path):
    items = read(tmp_path, karpathy_image("36979.jpg", "val", ["Two men.", "Two men."]))
    pair = Pair("36979.jpg", tmp_path / "36979.jpg", "Two men.", "val", "36979.jpg")
    assert items == [pair, pair], "what two people said alike counts twice, as it is published"
    assert str(items[0].origin) == f"{tmp_path / 'dataset_coco.json'} images[0]"


def test_coco_images_lie_in_subfolders_and_restval_is_training(tmp_path: Path):
    items = read(tmp_path, *karpathy_coco())
    assert {item.image_id: item.split for item in items} == COCO_SPLITS
    assert all(item.path == tmp_path / item.image_id for item in items)


def test_with_a_split_file_the_other_needs_no_splits(tmp_path: Path):
    path = write_json(tmp_path / "own.json", {"images": [IMAGE | {"split": None}]})
    (tmp_path / "splits.tsv").write_text("./a.jpg\tval\n")
    items = read_karpathy(load_karpathy(path), tmp_path, tmp_path / "splits.tsv")
    assert {item.split for item in items} == {"val"}


def test_captions_are_what_was_written_not_its_tokens(tmp_path: Path):
    (item,) = read(tmp_path, karpathy_image("a.jpg", "train", [" A Dog, asleep. "]))
    assert item.caption == "A Dog, asleep."


def test_the_file_may_name_its_data_set(tmp_path: Path):
    for name in ("coco", "flickr30k"):
        path = write_json(tmp_path / "data.json", {"images": [IMAGE], "dataset": name})
        assert karpathy_dataset(load_karpathy(path)) == name
    assert karpathy_dataset(load_karpathy(write_json(path, {"images": [IMAGE]}))) == ""


def test_an_image_without_a_caption_and_one_listed_twice_are_rejected(tmp_path: Path):
    pairs, rejected = divide(
        read(
            tmp_path,
            karpathy_image("silent.jpg", "train", []),
            karpathy_image("a.jpg", "train", ["A dog."]),
            karpathy_image("./a.jpg", "restval", ["It sleeps."]),
        )
    )
    assert [item.caption for item in pairs] == ["A dog."]
    assert rejected == [
        Rejected(str(tmp_path / "silent.jpg"), "no caption"),
        Rejected(str(tmp_path / "a.jpg"), "listed twice"),
    ]


def test_an_image_without_a_name_is_rejected_with_its_place(tmp_path: Path):
    good = karpathy_image("a.jpg", "train", ["A dog."])
    for name in ("", " ", "./", "val2014/"):
        items = read(tmp_path, good, karpathy_image(name, "train"))
        place = f"{tmp_path / 'dataset_coco.json'} images[1]"
        assert items[1:] == [Rejected(place, "no name of an image")]


def test_an_image_in_two_splits_names_both_places(tmp_path: Path):
    items = read(tmp_path, *(karpathy_image("a.jpg", split) for split in ("train", "test")))
    with raises("dataset.two_values", tmp_path / "dataset_coco.json") as caught:
        group_pairs(items)
    assert "images[0]" in str(caught.value) and "images[1]" in str(caught.value)


# A file of another shape: what it holds, the code of the mistake, and the place that is named.
MISTAKES = [
    ({"annotations": []}, "dataset.shape", "'images'"),
    ([IMAGE], "dataset.shape", "'images'"),
    ({"images": {}}, "dataset.shape", "images"),
    ({"images": []}, "dataset.no_image", ""),
    ({"images": ["a.jpg"]}, "dataset.shape", "images[0]"),
    ({"images": [{"file_name": "a.jpg"}]}, "dataset.shape", "images[0]"),
    ({"images": [IMAGE, IMAGE | {"split": "dev"}]}, "split.name", "images[1]"),
    ({"images": [IMAGE | {"split": None}]}, "dataset.shape", "images[0].split"),
    (
        {"images": [IMAGE | {"sentences": [{"raw": "A dog."}, {"tokens": []}]}]},
        *("dataset.shape", "images[0].sentences[1]"),
    ),
    (
        {"images": [IMAGE | {"sentences": [{"raw": 7}]}]},
        *("dataset.shape", "images[0].sentences[0].raw"),
    ),
    (
        {"images": [IMAGE | {"filename": "\ud83d.jpg"}]},
        *("dataset.character", "images[0].filename"),
    ),
]


@pytest.mark.parametrize(("value", "code", "place"), MISTAKES)
def test_a_file_of_another_shape_names_the_place(tmp_path: Path, value: Any, code: str, place: str):
    path = write_json(tmp_path / "dataset.json", value)
    with raises(code, path) as caught:
        list(read_karpathy(load_karpathy(path), tmp_path))
    assert str(path) in str(caught.value) and place in str(caught.value)


def test_a_file_that_is_not_whole_or_of_another_encoding(tmp_path: Path):
    path = tmp_path / "dataset.json"
    whole = json.dumps({"images": [IMAGE]}, indent=1).encode()
    umlaut = '{"images": ["A d\xf6g"]}'
    for contents, code, line in (
        (whole[: len(whole) // 2], "dataset.json", whole[: len(whole) // 2].count(b"\n") + 1),
        (b"", "dataset.json", 1),
        (b"[" * 100_000, "dataset.json", None),
        (umlaut.encode("latin-1"), "dataset.encoding", None),
        (umlaut.encode("utf-16"), "dataset.encoding", None),
    ):
        path.write_bytes(contents)
        with raises(code, path, line):
            load_karpathy(path)


def test_a_missing_file_and_a_missing_folder(tmp_path: Path):
    with raises("dataset.file", tmp_path / "none.json"):
        load_karpathy(tmp_path / "none.json")
    contents = load_karpathy(write_json(tmp_path / "dataset.json", {"images": [IMAGE]}))
    with raises("dataset.folder", tmp_path / "photos"):
        list(read_karpathy(contents, tmp_path / "photos"))
