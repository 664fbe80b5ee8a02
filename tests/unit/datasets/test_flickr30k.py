"""Flickr30k in the authors' layout, with a given split and with a drawn one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.pages import blocks, run_script
from tests.samples import write_flickr8k, write_flickr30k
from tf_dpce.datasets.flickr30k import read_flickr30k
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.errors import UserError

NAMES = [f"{number}.jpg" for number in range(30)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_flickr30k(tmp_path / "flickr30k", NAMES)


def splits(root: Path, **options) -> dict[str, str]:
    pairs = [item for item in read_flickr30k(root, **options) if isinstance(item, Pair)]
    return {pair.image_id: pair.split for pair in pairs}


def test_a_split_file_says_which_image_is_where(root: Path, tmp_path: Path):
    lists = tmp_path / "splits.tsv"
    lists.write_text("0.jpg\ttrain\n1.jpg\tval\n2.jpg\ttest\nsilent.jpg\ttrain\n")
    items = list(read_flickr30k(root, split_file=lists))
    images = root / "flickr30k-images"
    pairs = [
        Pair(name, images / name, f"A dog , number {n} .", split, name)
        for name, split in (("0.jpg", "train"), ("1.jpg", "val"), ("2.jpg", "test"))
        for n in range(2)
    ]
    # Each of the 27 others has two captions and is refused once.
    others = [Rejected(str(images / name), "in no split") for name in NAMES[3:]]
    assert items == [*pairs, *others, Rejected(str(images / "silent.jpg"), "no caption")]


def test_without_one_a_tenth_each_is_drawn_and_of_the_whole_set_a_thousand(root: Path):
    assert Counter(splits(root).values()) == {"train": 24, "val": 3, "test": 3}
    assert splits(root, seed=0) == splits(root, seed=0) != splits(root, seed=1)


def test_dirt_does_not_enter_the_draw(root: Path):
    captions = root / "results_20130124.token"
    clean = splits(root)
    captions.write_text(captions.read_text() + "odd.jpg.1#0\ta name\nno tab.jpg\n")
    assert splits(root) == clean
    reasons = [item.reason for item in read_flickr30k(root) if isinstance(item, Rejected)]
    assert reasons == ["malformed name", "no tab between name and caption"]


def test_a_image_that_is_missing_keeps_its_place_in_the_draw(root: Path):
    whole = splits(root)
    (root / "flickr30k-images" / "7.jpg").unlink()
    assert splits(root) == {name: split for name, split in whole.items() if name != "7.jpg"}
    (item,) = [item for item in read_flickr30k(root) if isinstance(item, Rejected)]
    assert item == Rejected(str(root / "flickr30k-images" / "7.jpg"), "no such file")


def test_images_and_captions_may_lie_elsewhere(root: Path, tmp_path: Path):
    images = (root / "flickr30k-images").rename(tmp_path / "photos")
    captions = (root / "results_20130124.token").rename(tmp_path / "captions.token")
    items = list(read_flickr30k(root, images, captions))
    assert len(items) == 60 and items[0].path == images / "0.jpg"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("flickr30k-images", "is not a folder: give .* as --images"),
        ("results_20130124.token", "is not a file: give .* as --annotations"),
    ],
)
def test_what_is_missing_is_named_with_its_option(root: Path, missing: str, message: str):
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(UserError, match=f"{missing} {message}"):
        list(read_flickr30k(root))


def test_a_split_file_of_other_images_is_one_line(root: Path, tmp_path: Path):
    lists = tmp_path / "splits.tsv"
    # As a list of the names without their end.
    lists.write_text("0\ttrain\n")
    message = f"results_20130124.token has no usable line.*/29.jpg: in no split of {lists}$"
    with pytest.raises(UserError, match=message):
        list(read_flickr30k(root, split_file=lists))


def test_the_script_of_the_readme_takes_the_held_out_images_of_flickr8k(tmp_path: Path):
    # Flickr30k holds all images of Flickr8k; `dev0.jpg` and `test0.jpg` are held out there.
    write_flickr8k(tmp_path / "data" / "raw" / "flickr8k", train=1, val=1, test=1)
    names = ["30.jpg", "train0.jpg", "dev0.jpg", "test0.jpg"]
    root = write_flickr30k(tmp_path / "data" / "raw" / "flickr30k", names)
    (script,) = blocks("docs/datasets.md", "python")
    run_script(script, tmp_path)
    given = splits(root, split_file=tmp_path / "splits.tsv")
    assert given == dict(zip(names, ("train", "train", "val", "test"), strict=True))
