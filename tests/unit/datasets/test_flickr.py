"""Flickr8k and Flickr30k in their authors' layouts, with their dirt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.errors import raises
from tests.pages import blocks, run_script
from tests.samples import divide, write_flickr8k, write_flickr30k
from tf_dpce.datasets.flickr import read_flickr8k, read_flickr30k
from tf_dpce.datasets.pair import Pair, Rejected

NAMES = [f"{number}.jpg" for number in range(30)]


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
    return {pair.image_id: pair.split for pair in divide(read_flickr30k(root, **options))[0]}


# --- Flickr8k -------------------------------------------------------------------------------------


def test_a_clean_folder_gives_its_pairs_in_order(small: Path):
    pairs, rejected = divide(read_flickr8k(small))
    path = small / "Flicker8k_Dataset" / "train0.jpg"
    assert pairs[0] == Pair("train0.jpg", path, "A train dog .", "train", "train0.jpg")
    assert Counter(item.split for item in pairs) == {"train": 4, "val": 2, "test": 2}
    assert {item.split for item in pairs if item.image_id.startswith("dev")} == {"val"}
    assert rejected == []


def test_each_unusable_image_is_rejected_once_with_its_reason(small: Path):
    dirt = ["gone.jpg#0\tit is", "gone.jpg#1\tno more", "odd.jpg.1#0\ta name", "no tab", ""]
    append(tokens(small), "\r\n".join(dirt))
    images = small / "Flicker8k_Dataset"
    (images / "extra.jpg").write_bytes(b"")
    append(tokens(small), "\nextra.jpg#0\tin no list\nextra.jpg#1\tat all\n")
    append(small / "Flickr8k_text" / "Flickr_8k.devImages.txt", "silent.jpg\n")
    pairs, rejected = divide(read_flickr8k(small))
    # Two lines for each of four images before the dirt.
    assert rejected == [
        Rejected(f"{tokens(small)} line 12", "no tab between name and caption"),
        Rejected(str(images / "gone.jpg"), "no such file"),
        Rejected(str(images / "odd.jpg.1"), "malformed name"),
        Rejected(str(images / "extra.jpg"), "in no split"),
        Rejected(str(images / "silent.jpg"), "no caption"),
    ]
    assert len(pairs) == 8


def test_folders_may_lie_elsewhere_and_paths_hold_from_any_folder(small: Path, monkeypatch):
    monkeypatch.chdir(small.parent)
    item = next(iter(read_flickr8k(Path("flickr8k"))))
    assert item.path == small / "Flicker8k_Dataset" / "train0.jpg"
    images = (small / "Flicker8k_Dataset").rename(small.parent / "photos")
    texts = (small / "Flickr8k_text").rename(small.parent / "texts")
    items = list(read_flickr8k(small, images, texts))
    assert len(items) == 8 and items[0].path == images / "train0.jpg"


def test_what_is_missing_of_flickr8k_is_named(small: Path):
    for name, code in (
        ("Flickr8k_text/Flickr8k.token.txt", "dataset.file"),
        ("Flickr8k_text/Flickr_8k.devImages.txt", "dataset.file"),
        ("Flickr8k_text", "dataset.folder"),
        ("Flicker8k_Dataset", "dataset.folder"),
    ):
        (small / name).rename(small / "elsewhere")
        with raises(code, small / name):
            list(read_flickr8k(small))
        (small / "elsewhere").rename(small / name)


@pytest.mark.parametrize(
    ("contents", "last"),
    [
        ("\n", "can be used"),
        ("a.jpg|0|b\ntrain0.JPG#0\tA dog\n", "Flicker8k_Dataset/train0.JPG: no such file"),
        ("extra.jpg#0\tin no list\n", "extra.jpg: in no split of {texts}"),
    ],
)
def test_a_token_file_with_no_usable_image_says_what_is_wrong_with_the_last(
    small: Path, contents: str, last: str
):
    tokens(small).write_text(contents)
    (small / "Flicker8k_Dataset" / "extra.jpg").write_bytes(b"")
    with raises("dataset.no_image", tokens(small)) as caught:
        list(read_flickr8k(small))
    assert str(caught.value).endswith(last.format(texts=small / "Flickr8k_text"))


def test_lines_that_are_not_utf8_and_images_in_two_splits(small: Path):
    test_images = small / "Flickr8k_text" / "Flickr_8k.testImages.txt"
    append(tokens(small), b"train0.jpg#2\tcaf\xe9\n")
    with raises("dataset.encoding", tokens(small), line=9):
        list(read_flickr8k(small))
    append(test_images, "train1.jpg\n")
    with raises("split.repeated", test_images, line=2):
        list(read_flickr8k(small))


def test_the_real_folder(flickr8k_root: Path):
    pairs, rejected = divide(read_flickr8k(flickr8k_root))
    assert Counter(pair.split for pair in pairs) == {"train": 30000, "val": 5000, "test": 5000}
    # 460 lines name 93 images that are not there; one of the names ends in .jpg.1.
    reasons = Counter(item.reason for item in rejected)
    assert reasons == {"no such file": 92, "malformed name": 1}


# --- Flickr30k ------------------------------------------------------------------------------------


def test_a_split_file_says_which_image_is_where(large: Path, tmp_path: Path):
    lists = tmp_path / "splits.tsv"
    lists.write_text("0.jpg\ttrain\n1.jpg\tval\n2.jpg\ttest\nsilent.jpg\ttrain\n")
    items = list(read_flickr30k(large, split_file=lists))
    images = large / "flickr30k-images"
    pairs = [
        Pair(name, images / name, f"A dog , number {n} .", split, name)
        for name, split in (("0.jpg", "train"), ("1.jpg", "val"), ("2.jpg", "test"))
        for n in range(2)
    ]
    # Each of the 27 others has two captions and is rejected once.
    others = [Rejected(str(images / name), "in no split") for name in NAMES[3:]]
    assert items == [*pairs, *others, Rejected(str(images / "silent.jpg"), "no caption")]


def test_without_one_a_tenth_each_is_drawn_and_of_the_whole_set_a_thousand(large: Path):
    assert Counter(splits(large).values()) == {"train": 24, "val": 3, "test": 3}
    assert splits(large, seed=0) == splits(large, seed=0) != splits(large, seed=1)


def test_dirt_does_not_enter_the_draw(large: Path):
    clean = splits(large)
    append(large / "results_20130124.token", "odd.jpg.1#0\ta name\nno tab.jpg\n")
    assert splits(large) == clean
    reasons = [item.reason for item in divide(read_flickr30k(large))[1]]
    assert reasons == ["no tab between name and caption", "malformed name"]


def test_an_image_that_is_missing_keeps_its_place_in_the_draw(large: Path):
    whole = splits(large)
    (large / "flickr30k-images" / "7.jpg").unlink()
    assert splits(large) == {name: split for name, split in whole.items() if name != "7.jpg"}
    _, rejected = divide(read_flickr30k(large))
    assert rejected == [Rejected(str(large / "flickr30k-images" / "7.jpg"), "no such file")]


def test_images_and_captions_may_lie_elsewhere_and_are_named_if_missing(large: Path):
    images = (large / "flickr30k-images").rename(large.parent / "photos")
    with raises("dataset.folder", large / "flickr30k-images"):
        list(read_flickr30k(large))
    captions = (large / "results_20130124.token").rename(large.parent / "captions.token")
    with raises("dataset.file", large / "results_20130124.token"):
        list(read_flickr30k(large, images))
    items = list(read_flickr30k(large, images, captions))
    assert len(items) == 60 and items[0].path == images / "0.jpg"


def test_a_split_file_of_other_images_is_named(large: Path, tmp_path: Path):
    lists = tmp_path / "splits.tsv"
    # As a list of the names without their end.
    lists.write_text("0\ttrain\n")
    with raises("dataset.no_image", large / "results_20130124.token") as caught:
        list(read_flickr30k(large, split_file=lists))
    assert str(caught.value).endswith(f"/29.jpg: in no split of {lists}")


def test_the_script_of_the_docs_takes_the_held_out_images_of_flickr8k(tmp_path: Path):
    # Flickr30k holds all images of Flickr8k; `dev0.jpg` and `test0.jpg` are held out there.
    write_flickr8k(tmp_path / "data" / "raw" / "flickr8k", train=1, val=1, test=1)
    names = ["30.jpg", "train0.jpg", "dev0.jpg", "test0.jpg"]
    root = write_flickr30k(tmp_path / "data" / "raw" / "flickr30k", names)
    (script,) = blocks("docs/datasets.md", "python")
    run_script(script, tmp_path)
    given = splits(root, split_file=tmp_path / "splits.tsv")
    assert given == dict(zip(names, ("train", "train", "val", "test"), strict=True))
