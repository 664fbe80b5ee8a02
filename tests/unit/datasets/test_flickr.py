"""Flickr8k and Flickr30k in their authors' layouts, with their dirt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.errors import raises
from tests.samples import write_flickr8k, write_flickr30k, write_images, write_json
from tf_dpce.datasets.expected_sizes import OFFICIAL_SPLITS
from tf_dpce.datasets.flickr import read_flickr8k, read_flickr30k
from tf_dpce.datasets.listing import Image, Rejected, gather
from tf_dpce.files import sha256_lines

NAMES = [f"{number}.jpg" for number in range(30)]
# Of the fixture `small`.
SPLITS = {"train0.jpg": "train", "train1.jpg": "train", "dev0.jpg": "val", "test0.jpg": "test"}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Flickr8k."""
    return write_flickr8k(tmp_path / "flickr8k", train=2, val=1, test=1)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Flickr30k."""
    return write_flickr30k(tmp_path / "flickr30k", NAMES)


def tokens(root: Path) -> Path:
    return root / "Flickr8k_text" / "Flickr8k.token.txt"


def append(path: Path, text: str | bytes) -> None:
    path.write_bytes(path.read_bytes() + (text if isinstance(text, bytes) else text.encode()))


def splits(root: Path, **options) -> dict[str, str]:
    return {image.image_id: image.split for image in gather(read_flickr30k(root, **options))[0]}


# --- Flickr8k -------------------------------------------------------------------------------------


def test_a_clean_folder_gives_its_images_in_order_wherever_it_lies(small: Path, monkeypatch):
    monkeypatch.chdir(small.parent)
    images, rejected = gather(read_flickr8k(Path("flickr8k")))
    path = small / "Flicker8k_Dataset" / "train0.jpg"
    captions = ["A train dog .", "The dog number w1 ."]
    assert images[0] == Image("train0.jpg", path, captions, "train")
    assert {image.image_id: image.split for image in images} == SPLITS and rejected == []
    folder = (small / "Flicker8k_Dataset").rename(small.parent / "photos")
    texts = (small / "Flickr8k_text").rename(small.parent / "texts")
    images, _ = gather(read_flickr8k(small, folder, texts))
    assert len(images) == 4 and images[0].path == folder / "train0.jpg"


def test_each_unusable_image_is_rejected_once_with_its_reason(small: Path):
    dirt = ["gone.jpg#0\tit is", "gone.jpg#1\tno more", "no tab", ""]
    append(tokens(small), "\r\n".join(dirt))
    append(small / "Flickr8k_text" / "Flickr_8k.devImages.txt", "silent.jpg\n")
    found, rejected = gather(read_flickr8k(small))
    # Two lines for each of four images before the dirt.
    assert rejected == [
        Rejected(f"{tokens(small)} line 11", "no name and caption"),
        Rejected(str(small / "Flicker8k_Dataset" / "gone.jpg"), "in no split"),
        Rejected(str(small / "Flicker8k_Dataset" / "silent.jpg"), "no caption"),
    ]
    assert len(found) == 4


def test_what_is_missing_of_flickr8k_or_malformed_is_named(small: Path):
    for name, code in (
        ("Flickr8k_text/Flickr8k.token.txt", "dataset.layout"),
        ("Flickr8k_text/Flickr_8k.devImages.txt", "dataset.file"),
        ("Flickr8k_text", "dataset.layout"),
        ("Flicker8k_Dataset", "dataset.layout"),
    ):
        (small / name).rename(small / "elsewhere")
        with raises(code, small if code == "dataset.layout" else small / name):
            list(read_flickr8k(small))
        (small / "elsewhere").rename(small / name)
    append(tokens(small), b"train0.jpg#2\tcaf\xe9\n")
    with raises("dataset.encoding", tokens(small), line=9):
        list(read_flickr8k(small))
    test_images = small / "Flickr8k_text" / "Flickr_8k.testImages.txt"
    append(test_images, "train1.jpg\n")
    with raises("split.repeated", test_images, line=2):
        list(read_flickr8k(small))


def test_the_real_folder(flickr8k_root: Path):
    images, rejected = gather(read_flickr8k(flickr8k_root))
    assert Counter(image.split for image in images) == {"train": 6000, "val": 1000, "test": 1000}
    names = sorted(f"{image.split}\t{image.image_id}" for image in images)
    assert sha256_lines(names) == OFFICIAL_SPLITS["flickr8k"]
    # 460 lines name 93 images that are not there; one of the names ends in .jpg.1.
    assert Counter(item.reason for item in rejected) == {"in no split": 93}


def kaggle(root: Path, captions: str, names: list[str]) -> Path:
    write_images(root / "Images", names)
    (root / "captions.txt").write_text(captions)
    return root


def test_kaggles_layout_of_flickr8k_with_its_quotes(tmp_path: Path):
    rows = ["image,caption", 'a.jpg,"the ""red"" one, far away"', "a.jpg, A dog .", "b.jpg,a cat"]
    # A quote that is never closed costs its own line alone.
    rows += ['c.jpg,"a cow', "c.jpg,one, two", "c.jpg,two cows"]
    root = kaggle(tmp_path, "\n".join(rows), ["a.jpg", "b.jpg", "c.jpg"])
    images, rejected = gather(read_flickr8k(root))
    assert {image.image_id: image.captions for image in images} == {
        **{"a.jpg": ['the "red" one, far away', "A dog ."], "b.jpg": ["a cat"]},
        "c.jpg": ["two cows"],
    }
    places = [f"{root / 'captions.txt'} line {line}" for line in (5, 6)]
    assert rejected == [Rejected(place, "no name and caption") for place in places]
    # No list is there: a tenth each is drawn, which of three is one.
    assert sorted(image.split for image in images) == ["test", "train", "val"]


def test_the_official_split_of_flickr8k_in_any_of_its_forms(small: Path, tmp_path: Path):
    lists = small / "Flickr8k_text"
    rows = "".join(f"{name},a dog\n" for name in SPLITS)
    root = kaggle(tmp_path / "kaggle", f"image,caption\n{rows}", list(SPLITS))
    entries = [{"filename": name, "split": split} for name, split in SPLITS.items()]
    json_file = write_json(tmp_path / "dataset_flickr8k.json", {"images": entries})
    lines = tmp_path / "splits.tsv"
    # Names of a split file are found like those of the images.
    lines.write_text("".join(f"{n.upper()}\t{split}\n" for n, split in SPLITS.items()))

    def given(split_file: Path | None) -> dict[str, str]:
        images, _ = gather(read_flickr8k(root, split_file=split_file))
        return {image.image_id: image.split for image in images}

    for split_file in (lists, lists / "Flickr_8k.testImages.txt", json_file, lines):
        assert given(split_file) == SPLITS, split_file
    assert given(None) != SPLITS
    # Lists that lie in the folder are found by themselves.
    lists.rename(root / "Flickr8k_text")
    assert given(None) == SPLITS
    (root / "Flickr8k_text" / "Flickr_8k.devImages.txt").unlink()
    with raises("dataset.file", root / "Flickr8k_text" / "Flickr_8k.devImages.txt"):
        given(None)


# --- Flickr30k ------------------------------------------------------------------------------------


def test_a_split_file_says_which_image_is_where(large: Path, tmp_path: Path):
    lists = tmp_path / "splits.tsv"
    lists.write_text("0.jpg\ttrain\n1.jpg\tval\n2.jpg\ttest\n")
    found, rejected = gather(read_flickr30k(large, split_file=lists))
    images = large / "flickr30k-images"
    assert found == [
        Image(name, images / name, [f"A dog , number {n} ." for n in range(2)], split)
        for name, split in (("0.jpg", "train"), ("1.jpg", "val"), ("2.jpg", "test"))
    ]
    # Each of the 27 others has two captions and is rejected once.
    assert rejected == [Rejected(str(images / name), "in no split") for name in NAMES[3:]]


def test_without_one_a_tenth_each_is_drawn_whatever_dirt_there_is(large: Path):
    clean = splits(large)
    assert Counter(clean.values()) == {"train": 24, "val": 3, "test": 3}
    assert splits(large, seed=1) != clean
    append(large / "results_20130124.token", "no tab.jpg\n")
    (large / "flickr30k-images" / "7.jpg").unlink()
    assert splits(large) == clean, "an image that is missing keeps its place in the draw"
    reasons = [item.reason for item in gather(read_flickr30k(large))[1]]
    assert reasons == ["no name and caption"]


@pytest.mark.parametrize("folder", ["flickr30k_images", "flickr30k_images/flickr30k_images"])
def test_kaggles_layout_of_flickr30k_with_its_broken_row(tmp_path: Path, folder: str):
    write_images(tmp_path / folder, ["1.jpg", "2.jpg", "3.jpg"])
    rows = ["image_name| comment_number| comment", "1.jpg| 0| A dog | a cat .", '1.jpg| 1| "Two" .']
    # The second bar of one row is missing in the published file; where even the number is, a row
    # cannot be told apart.
    rows += ["2.jpg| 4   A dog runs across the grass .", "3.jpg| 0| 3 men", "3.jpg A man", "3.jpg|"]
    (tmp_path / "results.csv").write_text("\n".join(rows))
    images, rejected = gather(read_flickr30k(tmp_path))
    assert {image.image_id: image.captions for image in images} == {
        "1.jpg": ["A dog | a cat .", '"Two" .'],
        "2.jpg": ["A dog runs across the grass ."],
        "3.jpg": ["3 men"],
    }
    assert images[0].path == tmp_path / folder / "1.jpg"
    places = [f"{tmp_path / 'results.csv'} line {line}" for line in (6, 7)]
    assert rejected == [Rejected(place, "no name and caption") for place in places]


def test_images_and_captions_may_lie_elsewhere_and_are_named_if_missing(large: Path):
    images = (large / "flickr30k-images").rename(large.parent / "photos")
    captions = (large / "results_20130124.token").rename(large.parent / "captions.token")
    with raises("dataset.layout", large):
        list(read_flickr30k(large, None, captions))
    with raises("dataset.layout", large):
        list(read_flickr30k(large, images))
    assert gather(read_flickr30k(large, images, captions))[0][0].path == images / "0.jpg"
