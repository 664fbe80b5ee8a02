"""Published sizes, and what is said where prepared data differs."""

from __future__ import annotations

import pytest

from tf_dpce.datasets.expected_sizes import PUBLISHED, differences


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_whole_data_set_is_not_spoken_of(name: str):
    published = PUBLISHED[name]
    instances = published.training_people or published.images["train"]
    assert list(differences(name, published.images, instances)) == []


@pytest.mark.parametrize(
    ("name", "total"),
    # Three data sets in full; Karpathy leaves 769 images of Flickr30k out.
    [("flickr30k", 31_783), ("mscoco", 123_287), ("cuhk_pedes", 40_206)]
    + [("flickr8k", 8_000), ("karpathy/flickr30k", 31_014), ("karpathy/coco", 123_287)],
)
def test_the_splits_add_up(name: str, total: int):
    assert sum(PUBLISHED[name].images.values()) == total


def test_each_difference_is_a_line():
    images = {"train": 29_700, "val": 1_014, "test": 999}
    assert list(differences("flickr30k", images, 29_700, "rejected.jsonl")) == [
        "train has 29,700 of the 29,783 published images: 83 are missing, see rejected.jsonl",
        "val has 1,014 images, 14 more than the 1,000 published",
        "test has 999 of the 1,000 published images: 1 is missing, see rejected.jsonl",
    ]


def test_a_given_split_may_be_karpathys_and_else_is_measured_by_the_authors():
    karpathys = PUBLISHED["karpathy/flickr30k"].images
    assert list(differences("flickr30k", karpathys, 29_000, given=True)) == []
    # One that is drawn is never his.
    assert len(list(differences("flickr30k", karpathys, 29_000))) == 2
    assert list(differences("flickr30k", {**karpathys, "test": 999}, 29_000, given=True)) == [
        "train has 29,000 of the 29,783 published images of the authors' split: 783 are missing",
        "val has 1,014 images, 14 more than the 1,000 published of the authors' split",
        "test has 999 of the 1,000 published images of the authors' split: 1 is missing",
    ]


def test_people_are_counted_where_they_are_the_classes():
    images = PUBLISHED["cuhk_pedes"].images
    assert list(differences("cuhk_pedes", images, 11_001)) == [
        "train has 11,001 of the 11,003 published people: 2 are missing"
    ]


@pytest.mark.parametrize("name", ["table", "scenes", "karpathy/", "karpathy/own"])
def test_nothing_is_said_of_what_nobody_published(name: str):
    assert list(differences(name, {"train": 1, "val": 1, "test": 1}, 1)) == []
