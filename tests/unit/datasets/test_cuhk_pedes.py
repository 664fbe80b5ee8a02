"""CUHK-PEDES in the authors' layout: the classes are people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.errors import raises
from tests.samples import person_image, write_json
from tf_dpce.datasets.cuhk_pedes import read_cuhk_pedes
from tf_dpce.datasets.listing import UNKNOWN_SPLIT, Image, Rejected, gather
from tf_dpce.datasets.text_files import MALFORMED

ONE = person_image("a.png", 11, "train")


def write(root: Path, *images: dict[str, Any]) -> Path:
    (root / "imgs").mkdir(parents=True, exist_ok=True)
    write_json(root / "reid_raw.json", list(images))
    return root


def test_the_instance_is_the_person_however_many_images_there_are(tmp_path: Path):
    root = write(
        tmp_path,
        person_image("cam_a/000_45.bmp", 11, "train"),
        person_image("cam_b/1.png", 11, "train"),
        person_image("Market/9.jpg", 13, "test"),
        ONE | {"file_path": "b.png", "captions": []},
        ONE | {"file_path": "."},
    )
    images, rejected = gather(read_cuhk_pedes(root))
    name = "cam_a/000_45.bmp"
    captions = ["The man wears a red coat.", "A man in a coat, number 11."]
    assert images[0] == Image(name, root / "imgs" / name, captions, "train", "11")
    assert str(images[0].origin) == f"{root / 'reid_raw.json'} [0]"
    assert [(image.instance, image.split) for image in images[1:]] == [
        *(("11", "train"), ("13", "test"))
    ]
    assert rejected == [
        Rejected(str(root / "imgs" / "b.png"), "no caption"),
        Rejected(f"{root / 'reid_raw.json'} [4]", "no name of an image"),
    ]


def test_a_person_is_in_no_second_split(tmp_path: Path):
    write(tmp_path, ONE, person_image("b.png", 11, "val"))
    with raises("dataset.leak", tmp_path / "reid_raw.json"):
        gather(read_cuhk_pedes(tmp_path))
    write(tmp_path, ONE, person_image("b.png", 11, "train"))
    (tmp_path / "splits.tsv").write_text("a.png\ttrain\nb.png\ttest\n")
    with raises("dataset.leak"):
        gather(read_cuhk_pedes(tmp_path, split_file=tmp_path / "splits.tsv"))


def test_images_and_captions_may_lie_elsewhere_and_are_named_if_missing(tmp_path: Path):
    root = write(tmp_path / "cuhk", ONE)
    images = (root / "imgs").rename(tmp_path / "people")
    with raises("dataset.folder", root / "imgs"):
        list(read_cuhk_pedes(root))
    listed = (root / "reid_raw.json").rename(tmp_path / "captions.json")
    with raises("dataset.file", root / "reid_raw.json"):
        list(read_cuhk_pedes(root, images))
    assert next(iter(read_cuhk_pedes(root, images, listed))).path == images / "a.png"


def test_what_has_another_shape_is_rejected_or_a_mistake(tmp_path: Path):
    bad = [{"file_path": "b.png"}, ONE | {"captions": ["A man.", None]}, ONE | {"id": 1.5}]
    root = write(tmp_path, *bad, ONE | {"id": True}, ONE | {"split": "query"}, ONE)
    images, rejected = gather(read_cuhk_pedes(root))
    reasons = [MALFORMED] * 4 + [UNKNOWN_SPLIT]
    place = root / "reid_raw.json"
    assert len(images) == 1
    assert rejected == [Rejected(f"{place} [{n}]", reason) for n, reason in enumerate(reasons)]
    write_json(place, {"images": [ONE]})
    with raises("dataset.shape", place):
        list(read_cuhk_pedes(root))
