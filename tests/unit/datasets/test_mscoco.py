"""MSCOCO in the official layout, both halves as one data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.samples import COCO_IMAGES, COCO_SPLITS, write_mscoco
from tf_dpce.datasets.mscoco import read_mscoco
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.errors import UserError

TRAIN, VAL = "captions_train2014.json", "captions_val2014.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_mscoco(tmp_path / "coco")


def edit(root: Path, file: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "annotations" / file
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def read(root: Path, **options) -> tuple[list[Pair], list[Rejected]]:
    items = list(read_mscoco(root, **options))
    return (
        [item for item in items if isinstance(item, Pair)],
        [item for item in items if isinstance(item, Rejected)],
    )


def split_file(folder: Path, splits: dict[str, str]) -> Path:
    path = folder / "splits.tsv"
    path.write_text("".join(f"{name}\t{split}\n" for name, split in splits.items()))
    return path


def test_captions_come_to_their_images_through_the_numbers(root: Path, tmp_path: Path):
    pairs, rejected = read(root, split_file=split_file(tmp_path, COCO_SPLITS))
    assert rejected == []
    name = "val2014/COCO_val2014_000000000042.jpg"
    origin = f"{root / 'annotations' / VAL} images[0]"
    assert [pair for pair in pairs if pair.image_id == name] == [
        Pair(name, root / name, f"A dog, number {n}.", "test", name, origin) for n in range(2)
    ]
    assert list(dict.fromkeys(pair.image_id for pair in pairs)) == list(COCO_IMAGES)


def test_without_a_split_file_images_of_both_halves_are_drawn(root: Path):
    def drawn(seed: int) -> dict[str, str]:
        return {pair.image_id: pair.split for pair in read(root, seed=seed)[0]}

    # A tenth of four images is none, and each split needs one: 2, 1 and 1.
    assert sorted(drawn(0).values()) == ["test", "train", "train", "val"]
    held = {name.split("/")[0] for n in range(8) for name, s in drawn(n).items() if s == "test"}
    assert held == {"train2014", "val2014"}


def test_what_a_split_file_leaves_out_or_adds_is_rejected(root: Path, tmp_path: Path):
    first, *others = COCO_IMAGES
    splits = dict.fromkeys(others, "train") | {"val2014/silent.jpg": "val"}
    pairs, rejected = read(root, split_file=split_file(tmp_path, splits))
    assert len(pairs) == 6
    assert rejected == [
        Rejected(str(root / first), "in no split"),
        Rejected(str(root / "val2014/silent.jpg"), "no caption"),
    ]


def test_a_split_file_without_the_folders_is_one_line(root: Path, tmp_path: Path):
    splits = {name.split("/")[1]: "train" for name in COCO_IMAGES}
    with pytest.raises(UserError, match="annotations lists no image.*val2014/COCO.*in no split"):
        read(root, split_file=split_file(tmp_path, splits))


def test_dirt_is_rejected_and_the_rest_is_kept(root: Path):
    def soil(value: dict[str, Any]) -> None:
        value["images"] += [value["images"][0], {"file_name": "silent.jpg", "id": 5}]
        value["images"].append({"file_name": "", "id": 7})
        value["annotations"].append({"image_id": 6, "caption": "Of nothing."})

    edit(root, VAL, soil)
    pairs, rejected = read(root)
    assert len(pairs) == 8
    path = root / "annotations" / VAL
    # Two images and four captions stand before.
    assert rejected == [
        Rejected(f"{path} images[2]", "listed twice"),
        Rejected(f"{path} images[4]", "no name of an image"),
        Rejected(f"{path} annotations[4]", "caption of no image that is listed"),
        Rejected(str(root / "val2014" / "silent.jpg"), "no caption"),
    ]


def test_annotations_may_lie_elsewhere(root: Path, tmp_path: Path):
    annotations = (root / "annotations").rename(tmp_path / "captions")
    assert len(read(root, annotations=annotations)[0]) == 8


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("annotations", "is not a folder: give .* as --annotations"),
        (f"annotations/{VAL}", "is not a file: give .* as --annotations"),
    ],
)
def test_what_is_missing_is_named_with_its_option(root: Path, missing: str, message: str):
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(UserError, match=f"{missing} {message}"):
        read(root)


def test_a_missing_root_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="coco is not a folder: give .* as --root"):
        read(tmp_path / "coco")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.pop("images"), "has no key 'images': give the folder"),
        (lambda value: value.pop("annotations"), "has no key 'annotations'"),
        (lambda value: value["images"][1].pop("id"), r"images\[1\] has no key 'id'"),
        (lambda value: value["images"][1].update(id=True), r"images\[1\].id is neither a whole"),
        # What the file of instances holds in place of captions.
        (lambda value: value["annotations"][0].pop("caption"), r"annotations\[0\] has no key 'cap"),
    ],
)
def test_a_file_of_another_shape_names_the_key(root: Path, change: Callable, message: str):
    edit(root, TRAIN, change)
    with pytest.raises(UserError, match=f"{TRAIN} {message}"):
        read(root)
