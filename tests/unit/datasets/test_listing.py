"""What every reader does with the images that it lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.errors import raises
from tf_dpce.datasets.listing import Image, Origin, Rejected, gather, usable_images
from tf_dpce.datasets.names import ImageNames

LIST, FOLDER = Path("list.csv"), Path("/p")


def listed(name: str, line: int, split: str | None = "train", instance: str = "") -> Image:
    origin = Origin.of_line(LIST, line)
    return Image(name, FOLDER / name, ["a dog"], split, instance, origin)


DOG, CAT = listed("dog.jpg", 2), listed("cat.jpg", 3, "val")


@pytest.fixture
def names(tmp_path: Path) -> ImageNames:
    return ImageNames(tmp_path)


def test_what_cannot_be_used_has_its_reason(names: ImageNames):
    items = [
        DOG,
        replace(DOG, captions=["again"]),
        replace(CAT, captions=[]),
        listed("cow.jpg", 4, split=None),
        listed("", 5),
    ]
    assert list(usable_images(LIST, items, names)) == [
        DOG,
        Rejected("/p/dog.jpg", "listed twice"),
        Rejected("/p/cat.jpg", "no caption"),
        Rejected("/p/cow.jpg", "in no split"),
        Rejected("list.csv line 5", "no name of an image"),
    ]


def test_given_splits_replace_those_of_the_images(names: ImageNames):
    splits = {"dog.jpg": "test", "silent.jpg": "val"}
    assert list(usable_images(LIST, [replace(DOG), replace(CAT)], names, splits)) == [
        replace(DOG, split="test"),
        Rejected("/p/cat.jpg", "in no split"),
        Rejected(str(names.folder / "silent.jpg"), "no caption"),
    ]


def test_if_no_image_can_be_used_the_last_one_is_named(names: ImageNames):
    for items, splits, last in (
        ([], None, "lists no image that can be used"),
        ([replace(DOG)], {"dog": "train"}, "/p/dog.jpg: in no split of splits.tsv"),
    ):
        with raises("dataset.no_image", LIST) as caught:
            list(usable_images(LIST, items, names, splits, Path("splits.tsv")))
        assert str(caught.value).endswith(last)


def test_an_image_with_two_values_names_both_lines(names: ImageNames):
    for again, attribute in (
        (listed("dog.jpg", 9, "test"), "split"),
        (listed("dog.jpg", 9, instance="wolf"), "instance"),
    ):
        with raises("dataset.two_values", LIST, line=9) as caught:
            list(usable_images(LIST, [DOG, again], names))
        assert "list.csv line 2" in str(caught.value) and attribute in str(caught.value)


def test_an_instance_has_several_images_of_one_split_but_never_of_two():
    first, second = listed("1.jpg", 2, instance="rex"), listed("2.jpg", 3, instance="rex")
    rejected = Rejected("x", "no such file")
    assert gather([first, rejected, second]) == ([first, second], [rejected])
    with raises("dataset.leak", LIST, line=3) as caught:
        gather([first, replace(second, split="val")])
    assert "list.csv line 2" in str(caught.value) and "'rex'" in str(caught.value)
