"""Drawn splits: stable, balanced, and never empty if that can be helped."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from tests.errors import raises
from tests.samples import write_images
from tf_dpce.datasets.listing import Image, gather
from tf_dpce.datasets.names import ImageNames
from tf_dpce.datasets.splits import (
    complete_splits,
    drawn_splits,
    held_out_splits,
    known_split,
    read_split_file,
)
from tf_dpce.datasets.table import read_table

SEEDS = range(40)


def plain(name: str, seed: int) -> str:
    """The draw itself: the first 64 bits of a hash, as a share of all."""
    share = int(hashlib.sha256(f"{seed}\t{name}".encode()).hexdigest()[:16], 16) / 2**64
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def names(count: int) -> list[str]:
    return [f"{number}.jpg" for number in range(count)]


@pytest.mark.parametrize("count", [3, 4, 7, 20, 40])
def test_three_names_or_more_leave_no_split_empty(count: int):
    rescued = 0
    for seed in SEEDS:
        splits = drawn_splits(names(count), seed)
        counts = Counter(splits.values())
        assert set(counts) == {"train", "val", "test"} and counts.total() == count
        moved = [name for name in names(count) if splits[name] != plain(name, seed)]
        missing = 3 - len({plain(name, seed) for name in names(count)})
        assert len(moved) == missing, "one name moves for each empty split, and no other"
        rescued += missing
        assert drawn_splits(names(count)[::-1] + names(2), seed) == splits, "order does not matter"
    # Of 40 names none is in val by chance 0.9^40 = 1.5 % of the time, and of 3 names 73 %.
    assert rescued > 0 or count >= 20


def test_one_or_two_names_cannot_fill_three_splits():
    for seed in SEEDS:
        assert len(drawn_splits(names(1), seed)) == 1
        assert len(set(drawn_splits(names(2), seed).values())) == 2
    assert drawn_splits([], 0) == {}


def test_what_will_be_rejected_is_not_the_only_image_of_a_split(tmp_path: Path):
    write_images(tmp_path, names(3))
    # 300 characters are more than a name on a disk may have.
    gone = ["gone.jpg,a dog\n", "https://example.org/a.jpg,a dog\n", f"{'x' * 300}.jpg,a dog\n"]
    bad = ["silent.jpg,\n", *gone]
    rows = [*bad, *(f"{name},a dog\n" for name in names(3))]
    path = tmp_path / "pairs.csv"
    path.write_text("".join(["image,caption\n", *rows]))
    for seed in SEEDS:
        images, _ = gather(read_table(path, seed=seed))
        usable = [image for image in images if image.image_id in names(3)]
        assert {image.split for image in usable} == {"train", "val", "test"}


def test_so_many_are_held_out_but_never_more_than_a_tenth():
    for count, held_out, expected in ((5000, 100, 100), (5000, 900, 500), (12, 100, 1), (3, 9, 1)):
        counts = Counter(held_out_splits(names(count), 0, held_out).values())
        assert counts == {"train": count - 2 * expected, "val": expected, "test": expected}


def test_what_is_held_out_depends_on_the_names_and_the_seed_alone():
    splits = held_out_splits(names(200), 3, 20)
    assert held_out_splits(names(200)[::-1] + names(9), 3, 20) == splits
    assert held_out_splits(names(200), 4, 20) != splits


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        # Of 40 training images a tenth; if both are missing, of the 36 left a tenth again.
        (("train",), {"test": 4, "val": 3}),
        (("train", "val"), {"test": 4}),
        (("train", "test"), {"val": 4}),
        (("val",), {}),
    ],
)
def test_a_missing_val_or_test_is_a_tenth_of_training(given: tuple[str], drawn: dict[str, int]):
    def completed(order: int) -> dict[str, str]:
        names = [(f"{split}{n}.jpg", split) for split in given for n in range(40)]
        images = [Image(name, Path(name), ["a dog"], split) for name, split in names]
        complete_splits(images[::order], seed=5)
        return {image.image_id: image.split for image in images}

    splits = completed(1)
    assert completed(-1) == splits, "the order of the images does not matter"
    expected = dict.fromkeys(given, 40) | drawn
    if "train" in given:
        expected["train"] -= sum(drawn.values())
    assert Counter(splits.values()) == expected


def test_a_split_file_is_read_line_by_line_and_replaces_the_draw(tmp_path: Path):
    path = tmp_path / "splits.tsv"
    path.write_bytes("\ufeffa b.jpg\ttrain\r\n\r\nc.jpg\t val \na b.jpg\ttrain\n".encode())
    assert read_split_file(path, ImageNames(tmp_path)) == {"a b.jpg": "train", "c.jpg": "val"}


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "Train", "training"]),
        ("val", ["val", "valid", "validation", "dev", " DEV "]),
        ("test", ["test", "testing"]),
        (None, ["", "tr", "trainval", "devel", "extra"]),
    ],
)
def test_a_split_has_several_names(split: str | None, names: list[str]):
    assert {known_split(name) for name in names} == {split}


def test_mistakes_in_a_split_file_name_the_line(tmp_path: Path):
    path = tmp_path / "splits.tsv"
    with raises("dataset.file", path):
        read_split_file(path, ImageNames(tmp_path))
    for text, code, line in (
        ("dog.jpg\ttrain\n./dog.jpg\tval\n", "split.repeated", 2),
        ("dog.jpg train\n", "split.line", 1),
        ("\n\ttrain\n", "split.line", 2),
        ("dog.jpg\tdevil\n", "split.name", 1),
        ("\n", "split.empty", None),
    ):
        path.write_text(text)
        with raises(code, path, line):
            read_split_file(path, ImageNames(tmp_path))
