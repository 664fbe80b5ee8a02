"""Pairs gathered by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.errors import raises
from tf_dpce.datasets.pair import Image, Origin, Pair, Rejected, group_pairs

LIST = Path("list.csv")
DOG = Pair("dog", Path("/p/dog.jpg"), "a dog", "train", "dog", Origin.of_line(LIST, 2))
CAT = Pair("cat", Path("/p/cat.jpg"), "a cat", "val", "cat", Origin.of_line(LIST, 3))


def test_captions_come_together_in_the_order_of_first_appearance():
    items = [DOG, CAT, Rejected("x", "no such file"), replace(DOG, caption="it sleeps"), DOG]
    images, rejected = group_pairs(items)
    assert images == [
        Image("dog", Path("/p/dog.jpg"), ("a dog", "it sleeps", "a dog"), "train", "dog"),
        Image("cat", Path("/p/cat.jpg"), ("a cat",), "val", "cat"),
    ]
    assert rejected == [Rejected("x", "no such file")]


def test_an_image_with_two_values_names_both_lines():
    for field, other in (("split", "test"), ("instance", "wolf")):
        later = replace(DOG, **{field: other}, origin=Origin.of_line(LIST, 9))
        with raises("dataset.two_values", LIST, line=9) as caught:
            group_pairs([DOG, later])
        assert "list.csv line 2" in str(caught.value) and field in str(caught.value)


def test_an_instance_in_two_splits_is_a_leak():
    with raises("dataset.leak", LIST, line=3) as caught:
        group_pairs([replace(DOG, instance="rex"), replace(CAT, instance="rex")])
    assert "list.csv line 2" in str(caught.value) and "'rex'" in str(caught.value)


def test_an_instance_may_have_several_images_of_one_split():
    images, _ = group_pairs(
        [replace(DOG, instance="rex"), replace(CAT, split="train", instance="rex")]
    )
    assert [image.instance for image in images] == ["rex", "rex"]
