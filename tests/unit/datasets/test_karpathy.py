"""Karpathy's files: three data sets in one format, and what can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.errors import raises
from tests.samples import COCO_SPLITS, karpathy_coco, karpathy_image, write_json
from tf_dpce.datasets.karpathy import read_karpathy
from tf_dpce.datasets.listing import UNKNOWN_SPLIT, Image, Rejected, gather
from tf_dpce.datasets.text_files import MALFORMED

IMAGE = karpathy_image("a.jpg", "train")


def read(folder: Path, *images: dict[str, Any], **options: Path) -> list[Image | Rejected]:
    path = write_json(folder / "dataset_coco.json", {"images": images})
    return list(read_karpathy(folder, path, **options))


def test_flickr_images_lie_in_the_folder_itself_and_captions_are_as_written(tmp_path: Path):
    (item,) = read(tmp_path, karpathy_image("36979.jpg", "val", [" Two Men, asleep. ", "Two."] * 2))
    captions = ["Two Men, asleep.", "Two."] * 2
    expected = Image("36979.jpg", tmp_path / "36979.jpg", captions, "val")
    assert item == expected, "what two people said alike counts twice, as it is published"
    assert str(item.origin) == f"{tmp_path / 'dataset_coco.json'} images[0]"


def test_coco_images_lie_in_subfolders_and_restval_is_training(tmp_path: Path):
    items = read(tmp_path, *karpathy_coco())
    assert {item.image_id: item.split for item in items} == COCO_SPLITS
    assert all(item.path == tmp_path / item.image_id for item in items)


def test_with_a_split_file_the_other_needs_no_splits(tmp_path: Path):
    (tmp_path / "splits.tsv").write_text("./a.jpg\tval\n")
    (item,) = read(tmp_path, IMAGE | {"split": None}, split_file=tmp_path / "splits.tsv")
    assert item.split == "val"


def test_an_image_is_known_by_one_spelling_of_its_name(tmp_path: Path):
    again = karpathy_image("./a.jpg", "restval", ["It sleeps."])
    unnamed = [karpathy_image(name, "train") for name in ("", " ", "./", "val2014/")]
    place = f"{tmp_path / 'dataset_coco.json'} images"
    assert gather(read(tmp_path, IMAGE, again, *unnamed))[1] == [
        Rejected(str(tmp_path / "a.jpg"), "listed twice"),
        *(Rejected(f"{place}[{n}]", "no name of an image") for n in range(2, 6)),
    ]
    with raises("dataset.two_values", tmp_path / "dataset_coco.json") as caught:
        read(tmp_path, IMAGE, again | {"split": "test"})
    assert "images[0]" in str(caught.value) and "images[1]" in str(caught.value)


def test_an_entry_of_another_shape_is_rejected_and_the_rest_is_read(tmp_path: Path):
    bad = [
        "a.jpg",
        IMAGE | {"split": None},
        IMAGE | {"sentences": [{"raw": "A dog."}, {"tokens": []}]},
        IMAGE | {"filename": "\ud83d.jpg"},
        IMAGE | {"split": "extra"},
    ]
    images, rejected = gather(read(tmp_path, *bad, IMAGE))
    assert [image.image_id for image in images] == ["a.jpg"]
    reasons = [MALFORMED] * 3 + ["half a character", UNKNOWN_SPLIT]
    place = f"{tmp_path / 'dataset_coco.json'} images"
    assert rejected == [Rejected(f"{place}[{n}]", reason) for n, reason in enumerate(reasons)]
    with raises("dataset.no_image", tmp_path / "dataset_coco.json") as caught:
        read(tmp_path, *bad)
    assert UNKNOWN_SPLIT in str(caught.value), "the last reason"


@pytest.mark.parametrize("value", [{"annotations": []}, [IMAGE], {"images": {}}])
def test_a_file_of_another_shape_is_a_mistake(tmp_path: Path, value: Any):
    path = write_json(tmp_path / "dataset.json", value)
    with raises("dataset.shape", path) as caught:
        list(read_karpathy(tmp_path, path))
    assert "images" in str(caught.value)


def test_a_file_that_is_missing_not_whole_or_of_another_encoding(tmp_path: Path):
    path = tmp_path / "dataset.json"
    with raises("dataset.file", path):
        list(read_karpathy(tmp_path, path))
    with raises("dataset.folder", tmp_path / "photos"):
        list(read_karpathy(tmp_path / "photos", path))
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
            list(read_karpathy(tmp_path, path))
