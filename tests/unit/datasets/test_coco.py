"""MSCOCO in the official layout, both halves as one data set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.errors import raises
from tests.samples import (
    COCO_IMAGES,
    COCO_SPLITS,
    write_coco,
    write_images,
    write_json,
    write_splits,
)
from tf_dpce.datasets.coco import read_coco, read_coco_captions
from tf_dpce.datasets.listing import Image, Rejected, gather
from tf_dpce.datasets.text_files import MALFORMED

TRAIN, VAL = "captions_train2014.json", "captions_val2014.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def edit(root: Path, file: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "annotations" / file
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def read(root: Path, **options) -> tuple[list[Image], list[Rejected]]:
    return gather(read_coco(root, **options))


def test_captions_come_to_their_images_through_the_numbers(root: Path, tmp_path: Path):
    images, rejected = read(root, split_file=write_splits(tmp_path / "splits.tsv", COCO_SPLITS))
    assert rejected == [] and [image.image_id for image in images] == list(COCO_IMAGES)
    name = "val2014/COCO_val2014_000000000042.jpg"
    captions = ["A dog, number 0.", "A dog, number 1."]
    assert images[2] == Image(name, root / name, captions, "test")
    assert str(images[2].origin) == f"{root / 'annotations' / VAL} images[0]"


def test_without_a_split_file_images_of_both_halves_are_drawn(root: Path):
    def drawn(seed: int) -> dict[str, str]:
        return {image.image_id: image.split for image in read(root, seed=seed)[0]}

    # A tenth of four images is none, and each split needs one: 2, 1 and 1.
    assert sorted(drawn(0).values()) == ["test", "train", "train", "val"]
    held = {name.split("/")[0] for n in range(8) for name, s in drawn(n).items() if s == "test"}
    assert held == {"train2014", "val2014"}


def test_a_split_file_without_the_folders_fits_no_image(root: Path, tmp_path: Path):
    splits = {name.split("/")[1]: "train" for name in COCO_IMAGES}
    with raises("dataset.no_image", root / "annotations") as caught:
        read(root, split_file=write_splits(tmp_path / "splits.tsv", splits))
    assert "val2014/COCO" in str(caught.value) and "splits.tsv" in str(caught.value)


def test_dirt_is_rejected_and_the_rest_is_read(root: Path):
    def soil(value: dict[str, Any]) -> None:
        value["images"] += [value["images"][0], {"file_name": "silent.jpg", "id": 5}]
        value["images"].append({"file_name": "", "id": 7})
        value["images"] += [{"file_name": "numberless.jpg"}, "b.jpg"]
        value["annotations"] += [{"image_id": 6, "caption": "Of nothing."}, {"image_id": 42}]

    edit(root, VAL, soil)
    images, rejected = read(root)
    assert [len(image.captions) for image in images] == [2] * 4
    path = root / "annotations" / VAL
    # Two images and four captions stand before.
    assert rejected == [
        Rejected(f"{path} images[2]", "listed twice"),
        Rejected(f"{path} images[4]", "no name of an image"),
        *(Rejected(f"{path} images[{number}]", MALFORMED) for number in (5, 6)),
        Rejected(f"{path} annotations[4]", "caption of no image that is listed"),
        Rejected(f"{path} annotations[5]", MALFORMED),
        Rejected(str(root / "val2014" / "silent.jpg"), "no caption"),
    ]
    edit(root, TRAIN, lambda value: value.pop("annotations"))
    with raises("dataset.shape", root / "annotations" / TRAIN):
        read(root)


def test_annotations_may_lie_elsewhere_and_are_named_if_missing(root: Path, tmp_path: Path):
    annotations = (root / "annotations").rename(tmp_path / "captions")
    assert len(read(root, annotations=annotations)[0]) == 4
    with raises("dataset.folder", root / "annotations"):
        read(root)
    (annotations / VAL).unlink()
    with raises("dataset.file", annotations / VAL):
        read(root, annotations=annotations)
    with raises("dataset.folder", tmp_path / "elsewhere"):
        read(tmp_path / "elsewhere")


# --- Captions of one's own, and the release of 2017 -----------------------------------------------


def captions_json(path: Path, captions: dict[str, str]) -> Path:
    names = list(captions)
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    written = [{"image_id": names.index(name), "caption": text} for name, text in captions.items()]
    return write_json(path, {"images": images, "annotations": [*written, {**written[0]}]})


def test_ones_own_captions_in_its_format(tmp_path: Path):
    names = write_images(tmp_path / "images", [f"{number}.jpg" for number in range(10)])
    file = captions_json(tmp_path / "captions.json", {f"{n}.JPG": f"dog {n}" for n in range(10)})
    expected = gather(read_coco_captions(tmp_path))
    for places in ({"annotations": file}, {"annotations": file, "images": names}):
        assert gather(read_coco_captions(**places)) == expected
    images, rejected = expected
    assert images[0] == Image(*("0.jpg", names / "0.jpg", ["dog 0"] * 2), images[0].split)
    assert rejected == [] and {image.split for image in images} == {"train", "val", "test"}
    splits = write_splits(tmp_path / "s.tsv", {"0.jpg": "train", "1.jpg": "val", "2.jpg": "test"})
    images, rejected = gather(read_coco_captions(tmp_path, split_file=splits))
    assert [image.split for image in images] == ["train", "val", "test"] and len(rejected) == 7


def test_the_files_of_2017_are_splits_and_a_test_is_drawn_from_training(tmp_path: Path, caplog):
    for part, count in (("train2017", 40), ("val2017", 3)):
        names = [f"{number:012d}.jpg" for number in range(count)]
        write_images(tmp_path / part, names)
        path = tmp_path / "annotations" / f"captions_{part}.json"
        captions_json(path, dict.fromkeys(names, "a dog"))
    with caplog.at_level("INFO", "tf_dpce"):
        images, rejected = gather(read_coco_captions(tmp_path))
    # A tenth of 40; both folders hold files of the same names.
    assert Counter(image.split for image in images) == {"train": 36, "val": 3, "test": 4}
    assert rejected == [] and any("drew 4" in line for line in caplog.messages)
    folders = {(image.image_id.split("/")[0], image.split) for image in images}
    assert folders == {("train2017", "train"), ("train2017", "test"), ("val2017", "val")}
    (tmp_path / "none").mkdir()
    with raises("dataset.layout", tmp_path / "none"):
        gather(read_coco_captions(tmp_path, tmp_path / "none"))
