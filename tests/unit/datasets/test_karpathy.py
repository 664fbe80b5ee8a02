"""Karpathy's files: three data sets in one format, and what can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.samples import COCO_SPLITS, karpathy_coco, karpathy_image, write_json
from tf_dpce.datasets.karpathy import karpathy_dataset, load_karpathy, read_karpathy
from tf_dpce.datasets.pair import Pair, Rejected, group_pairs
from tf_dpce.errors import UserError


def read(folder: Path, *images: dict[str, Any], **more: Any) -> list[Pair | Rejected]:
    path = write_json(folder / "dataset_coco.json", {"images": images, "dataset": "coco"} | more)
    return list(read_karpathy(load_karpathy(path), folder))


def test_flickr_images_lie_in_the_folder_itself(tmp_path: Path):
    items = read(tmp_path, karpathy_image("36979.jpg", "val", ["Two men.", "Two men."]))
    origin = f"{tmp_path / 'dataset_coco.json'} images[0]"
    pair = Pair("36979.jpg", tmp_path / "36979.jpg", "Two men.", "val", "36979.jpg", origin)
    assert items == [pair, pair], "what two people said alike counts twice, as it is published"


def test_coco_images_lie_in_subfolders_and_restval_is_training(tmp_path: Path):
    items = read(tmp_path, *karpathy_coco())
    assert {item.image_id: item.split for item in items} == COCO_SPLITS
    assert all(item.path == tmp_path / item.image_id for item in items)


def test_with_a_split_file_the_other_needs_no_splits(tmp_path: Path):
    image = karpathy_image("a.jpg", "train", ["A dog."])
    del image["split"]
    path = write_json(tmp_path / "own.json", {"images": [image]})
    (tmp_path / "splits.tsv").write_text("./a.jpg\tval\n")
    (item,) = read_karpathy(load_karpathy(path), tmp_path, tmp_path / "splits.tsv")
    assert item.split == "val"


def test_captions_are_what_was_written_not_its_tokens(tmp_path: Path):
    (item,) = read(tmp_path, karpathy_image("a.jpg", "train", [" A Dog, asleep. "]))
    assert item.caption == "A Dog, asleep."


@pytest.mark.parametrize(("more", "name"), [({}, "coco"), ({"dataset": "flickr30k"}, "flickr30k")])
def test_the_file_names_its_data_set(tmp_path: Path, more: dict[str, Any], name: str):
    read(tmp_path, karpathy_image("a.jpg", "train"), **more)
    assert karpathy_dataset(load_karpathy(tmp_path / "dataset_coco.json")) == name


def test_a_file_in_this_format_needs_no_name(tmp_path: Path):
    path = write_json(tmp_path / "own.json", {"images": [karpathy_image("a.jpg", "train")]})
    assert karpathy_dataset(load_karpathy(path)) == ""


def test_a_image_without_a_caption_and_one_listed_twice_are_rejected(tmp_path: Path):
    items = read(
        tmp_path,
        karpathy_image("silent.jpg", "train", []),
        karpathy_image("a.jpg", "train", ["A dog."]),
        karpathy_image("./a.jpg", "restval", ["It sleeps."]),
    )
    assert [item.caption for item in items if isinstance(item, Pair)] == ["A dog."]
    assert [item for item in items if isinstance(item, Rejected)] == [
        Rejected(str(tmp_path / "silent.jpg"), "no caption"),
        Rejected(str(tmp_path / "a.jpg"), "listed twice"),
    ]


@pytest.mark.parametrize("name", ["", " ", "./", "val2014/"])
def test_a_image_without_a_name_is_rejected_with_its_place(tmp_path: Path, name: str):
    good, bad = karpathy_image("a.jpg", "train", ["A dog."]), karpathy_image(name, "train")
    items = read(tmp_path, good, bad)
    place = f"{tmp_path / 'dataset_coco.json'} images[1]"
    assert items[1:] == [Rejected(place, "no name of an image")] and len(items) == 2


def test_a_image_in_two_splits_names_both_places(tmp_path: Path):
    items = read(tmp_path, *(karpathy_image("a.jpg", split) for split in ("train", "test")))
    with pytest.raises(UserError, match=r"a.jpg has two values of split.*\[0\].*images\[1\]"):
        group_pairs(items)


IMAGE = karpathy_image("a.jpg", "train")
NUMBER = {"raw": 7}
MISTAKES = {
    "no images": ({"annotations": []}, r"has no key 'images': give Karpathy's"),
    "a list": ([IMAGE], r"has no key 'images': give Karpathy's"),
    "an object": ({"images": {}}, r"images is no list: give Karpathy's"),
    "nothing": ({"images": []}, "lists no image that can be used"),
    "a text": ({"images": ["a.jpg"]}, r"images\[0\] has no key 'filename': give"),
    "official": ({"images": [{"file_name": "a.jpg"}]}, r"images\[0\] has no key 'filename': give"),
    "split": ({"images": [IMAGE, IMAGE | {"split": "dev"}]}, r"images\[1\]: split is 'dev'"),
    "no split": ({"images": [IMAGE | {"split": None}]}, r"images\[0\].split is no text"),
    "raw": (
        {"images": [IMAGE | {"sentences": [{"raw": "A dog."}, {"tokens": []}]}]},
        r"images\[0\].sentences\[1\] has no key 'raw'",
    ),
    "number": ({"images": [IMAGE | {"sentences": [NUMBER]}]}, r"sentences\[0\].raw is no text"),
    "half a character": (
        {"images": [IMAGE | {"filename": "\ud83d.jpg"}]},
        r"images\[0\].filename has half a character, \\ud83d",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_file_of_another_shape_is_one_line_with_file_key_and_remedy(tmp_path: Path, name: str):
    value, message = MISTAKES[name]
    path = write_json(tmp_path / "dataset.json", value)
    with pytest.raises(UserError, match=message) as error:
        list(read_karpathy(load_karpathy(path), tmp_path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut short", "empty", "too deep"])
def test_a_file_that_is_not_whole_is_one_line(tmp_path: Path, damage: str):
    whole = json.dumps({"images": [IMAGE]}).encode()
    contents = {
        "cut short": whole[: len(whole) // 2],
        "empty": b"",
        "too deep": b"[" * 100_000,
    }
    path = tmp_path / "dataset.json"
    path.write_bytes(contents[damage])
    with pytest.raises(UserError, match="dataset.json is not whole JSON, .*: fetch it again$"):
        load_karpathy(path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_of_another_encoding_need_not_be_fetched_again(tmp_path: Path, encoding: str):
    path = tmp_path / "dataset.json"
    path.write_bytes('{"images": ["A d\xf6g"]}'.encode(encoding))
    with pytest.raises(UserError, match="dataset.json is not UTF-8: save it as UTF-8$"):
        load_karpathy(path)


def test_a_missing_file_and_a_missing_folder_name_their_options(tmp_path: Path):
    with pytest.raises(UserError, match="none.json is not a file: give .* as --annotations"):
        load_karpathy(tmp_path / "none.json")
    listed = load_karpathy(write_json(tmp_path / "dataset.json", {"images": [IMAGE]}))
    with pytest.raises(UserError, match="photos is not a folder: give .* as --root"):
        list(read_karpathy(listed, tmp_path / "photos"))
