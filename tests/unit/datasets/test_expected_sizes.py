"""Published sizes, and what is said where prepared data differs."""

from __future__ import annotations

from tf_dpce.datasets.expected_sizes import PUBLISHED, TRAINING_PEOPLE, differences


def test_a_whole_data_set_is_not_spoken_of_and_its_splits_add_up():
    totals = {"flickr8k": 8_000, "flickr30k": 31_783, "mscoco": 123_287, "cuhk_pedes": 40_206}
    # Karpathy leaves 769 images of Flickr30k out.
    totals |= {f"karpathy/{name}": totals[name] for name in ("flickr8k", "flickr30k")}
    totals |= {"karpathy/flickr30k": 31_014, "karpathy/coco": 123_287}
    assert {name: sum(images.values()) for name, images in PUBLISHED.items()} == totals
    for name, images in PUBLISHED.items():
        instances = TRAINING_PEOPLE.get(name, images["train"])
        assert list(differences(name, images, instances)) == []
    # What nobody published.
    for name in ("table", "scenes", "karpathy/", "karpathy/own"):
        assert list(differences(name, {"train": 1, "val": 1, "test": 1}, 1)) == []


def test_each_difference_is_a_line():
    images = {"train": 29_700, "val": 1_014, "test": 1_000}
    assert list(differences("flickr30k", images, 29_700, "rejected.jsonl")) == [
        "train has 29,700 of the 29,783 published images, see rejected.jsonl",
        "val has 1,014 of the 1,000 published images",
    ]
    people = PUBLISHED["cuhk_pedes"]
    assert list(differences("cuhk_pedes", people, 11_001)) == [
        "train has 11,001 of the 11,003 published people"
    ]


def test_a_given_split_may_be_karpathys_and_else_is_measured_by_the_authors():
    karpathys = PUBLISHED["karpathy/flickr30k"]
    assert list(differences("flickr30k", karpathys, 29_000, given=True)) == []
    # One that is drawn is never his.
    assert len(list(differences("flickr30k", karpathys, 29_000))) == 2
    lines = list(differences("flickr30k", {**karpathys, "test": 999}, 29_000, given=True))
    assert len(lines) == 3 and all(line.endswith("of the authors' split") for line in lines)
