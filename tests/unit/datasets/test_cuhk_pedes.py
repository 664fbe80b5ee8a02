"""CUHK-PEDES in the authors' layout: the classes are people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.samples import person_image, write_json
from tf_dpce.datasets.cuhk_pedes import read_cuhk_pedes
from tf_dpce.datasets.pair import Pair, Rejected, group_pairs
from tf_dpce.errors import UserError


def write(root: Path, *images: dict[str, Any]) -> Path:
    (root / "imgs").mkdir(parents=True, exist_ok=True)
    write_json(root / "reid_raw.json", list(images))
    return root


def test_the_instance_is_the_person_however_many_images_there_are(tmp_path: Path):
    root = write(
        tmp_path,
        person_image("cam_a/000_45.bmp", 11, "train"),
        person_image("cam_b/1.png", 11, "train"),
        person_image("CUHK01/7.png", 12, "train"),
        person_image("Market/9.jpg", 13, "test"),
    )
    items = list(read_cuhk_pedes(root))
    name, origin = "cam_a/000_45.bmp", f"{root / 'reid_raw.json'} [0]"
    caption = "The man wears a red coat."
    assert items[0] == Pair(name, root / "imgs" / name, caption, "train", "11", origin)
    images, rejected = group_pairs(items)
    assert [(image.instance, image.split) for image in images] == [
        *(("11", "train"), ("11", "train"), ("12", "train"), ("13", "test")),
    ]
    assert {len(image.captions) for image in images} == {2} and rejected == []


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_person_in_training_is_in_no_other_split(tmp_path: Path, held_out: str):
    root = write(tmp_path, person_image("a.png", 11, "train"), person_image("b.png", 11, held_out))
    with pytest.raises(UserError, match=rf"'11' is in two splits, 'train' .*\[0\].*{held_out}"):
        group_pairs(read_cuhk_pedes(root))


def test_a_split_file_may_not_tear_a_person_apart(tmp_path: Path):
    names = ("a.png", "b.png")
    root = write(tmp_path, *(person_image(name, 11, "train") for name in names))
    (tmp_path / "splits.tsv").write_text("a.png\ttrain\nb.png\ttest\n")
    items = list(read_cuhk_pedes(root, split_file=tmp_path / "splits.tsv"))
    with pytest.raises(UserError, match="'11' is in two splits, 'train' .*'test'"):
        group_pairs(items)


def test_a_image_of_two_people_names_both_places(tmp_path: Path):
    root = write(tmp_path, person_image("a.png", 11, "train"), person_image("a.png", 12, "train"))
    with pytest.raises(UserError, match=r"a.png has two values of instance.*\[0\].*\[1\]"):
        group_pairs(read_cuhk_pedes(root))


def test_a_image_listed_twice_or_without_captions_is_rejected(tmp_path: Path):
    one = person_image("a.png", 11, "train")
    root = write(tmp_path, one, one, person_image("b.png", 11, "train") | {"captions": []})
    items = list(read_cuhk_pedes(root))
    assert sum(isinstance(item, Pair) for item in items) == 2
    assert [item for item in items if isinstance(item, Rejected)] == [
        Rejected(str(root / "imgs" / "a.png"), "listed twice"),
        Rejected(str(root / "imgs" / "b.png"), "no caption"),
    ]


def test_a_image_without_a_name_is_rejected_with_its_place(tmp_path: Path):
    root = write(tmp_path, ONE | {"file_path": "."}, ONE)
    *_, last = sorted(read_cuhk_pedes(root), key=lambda item: isinstance(item, Rejected))
    assert last == Rejected(f"{root / 'reid_raw.json'} [0]", "no name of an image")


def test_images_and_captions_may_lie_elsewhere(tmp_path: Path):
    root = write(tmp_path / "cuhk", person_image("a.png", 11, "train"))
    images = (root / "imgs").rename(tmp_path / "people")
    listed = (root / "reid_raw.json").rename(tmp_path / "captions.json")
    assert next(iter(read_cuhk_pedes(root, images, listed))).path == images / "a.png"


ONE = person_image("a.png", 11, "train")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"images": [ONE]}, "is no list: give the official reid_raw.json as --annotations"),
        ([ONE, {"file_path": "b.png"}], r"\[1\] has no key 'captions': give the official"),
        ([ONE | {"captions": "A man."}], r"\[0\].captions is no list"),
        ([ONE | {"captions": ["A man.", None]}], r"\[0\].captions\[1\] is no text"),
        ([ONE | {"id": 1.5}], r"\[0\].id is neither a whole number nor"),
        ([ONE | {"split": "query"}], r"\[0\]: split is 'query': it must be one of train, val"),
        ([], "lists no image that can be used"),
    ],
)
def test_a_file_of_another_shape_names_the_key(tmp_path: Path, value: Any, message: str):
    root = write(tmp_path)
    write_json(root / "reid_raw.json", value)
    with pytest.raises(UserError, match=f"reid_raw.json {message}"):
        list(read_cuhk_pedes(root))


@pytest.mark.parametrize(("missing", "option"), [("imgs", "images"), ("reid_raw.json", "annot")])
def test_what_is_missing_is_named_with_its_option(tmp_path: Path, missing: str, option: str):
    root = write(tmp_path, ONE)
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(UserError, match=f"{missing} is not a f.*--{option}"):
        list(read_cuhk_pedes(root))
