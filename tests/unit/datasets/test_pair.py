"""Pairs gathered by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tf_dpce.datasets.pair import Image, Pair, Rejected, group_pairs
from tf_dpce.errors import UserError

DOG = Pair("dog", Path("/p/dog.jpg"), "a dog", "train", "dog", "list.csv line 2")
CAT = Pair("cat", Path("/p/cat.jpg"), "a cat", "val", "cat", "list.csv line 3")


def test_captions_come_together_in_the_order_of_first_appearance():
    items = [DOG, CAT, Rejected("x", "no such file"), replace(DOG, caption="it sleeps"), DOG]
    images, rejected = group_pairs(items)
    assert images == [
        Image("dog", Path("/p/dog.jpg"), ("a dog", "it sleeps", "a dog"), "train", "dog"),
        Image("cat", Path("/p/cat.jpg"), ("a cat",), "val", "cat"),
    ]
    assert rejected == [Rejected("x", "no such file")]


@pytest.mark.parametrize(("field", "other"), [("split", "test"), ("instance", "wolf")])
def test_a_image_with_two_values_names_both_lines(field: str, other: str):
    later = replace(DOG, **{field: other}, origin="list.csv line 9")
    with pytest.raises(UserError, match=rf"dog has two values of {field}.*line 2.*line 9"):
        group_pairs([DOG, later])


def test_an_instance_in_two_splits_is_a_leak():
    with pytest.raises(UserError, match=r"'rex' is in two splits, 'train' .*line 2.*'val'.*line 3"):
        group_pairs([replace(DOG, instance="rex"), replace(CAT, instance="rex")])


def test_an_instance_may_have_several_images_of_one_split():
    images, _ = group_pairs(
        [replace(DOG, instance="rex"), replace(CAT, split="train", instance="rex")]
    )
    assert [image.instance for image in images] == ["rex", "rex"]
