"""Flickr8k in the authors' layout, with its dirt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.samples import write_flickr8k
from tf_dpce.datasets.flickr8k import read_flickr8k
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_flickr8k(tmp_path / "flickr8k", train=2, val=1, test=1)


def captions(root: Path) -> Path:
    return root / "Flickr8k_text" / "Flickr8k.token.txt"


def append(path: Path, text: str) -> None:
    path.write_bytes(path.read_bytes() + text.encode())


def rejections(root: Path) -> list[Rejected]:
    return [item for item in read_flickr8k(root) if isinstance(item, Rejected)]


def test_a_clean_folder_gives_its_pairs_in_order(root: Path):
    items = list(read_flickr8k(root))
    assert items[0] == Pair(
        image_id="train0.jpg",
        path=root / "Flicker8k_Dataset" / "train0.jpg",
        caption="A train dog .",
        split="train",
        instance="train0.jpg",
    )
    assert Counter(item.split for item in items) == {"train": 4, "val": 2, "test": 2}
    assert {item.split for item in items if item.image_id.startswith("dev")} == {"val"}


def test_each_unusable_image_is_rejected_once_with_its_reason(root: Path):
    dirt = ["gone.jpg#0\tit is", "gone.jpg#1\tno more", "odd.jpg.1#0\ta name", "no tab", ""]
    append(captions(root), "\r\n".join(dirt))
    images = root / "Flicker8k_Dataset"
    (images / "extra.jpg").write_bytes(b"")
    append(captions(root), "\nextra.jpg#0\tin no list\nextra.jpg#1\tat all\n")
    append(root / "Flickr8k_text" / "Flickr_8k.devImages.txt", "silent.jpg\n")
    # Two lines for each of four images before the dirt.
    assert rejections(root) == [
        Rejected(str(images / "gone.jpg"), "no such file"),
        Rejected(str(images / "odd.jpg.1"), "malformed name"),
        Rejected(f"{captions(root)}:12", "no tab between name and caption"),
        Rejected(str(images / "extra.jpg"), "in no split"),
        Rejected(str(images / "silent.jpg"), "no caption"),
    ]
    assert sum(isinstance(item, Pair) for item in read_flickr8k(root)) == 8


def test_folders_may_lie_elsewhere(root: Path, tmp_path: Path):
    images = (root / "Flicker8k_Dataset").rename(tmp_path / "photos")
    texts = (root / "Flickr8k_text").rename(tmp_path / "texts")
    items = list(read_flickr8k(root, images, texts))
    assert len(items) == 8 and items[0].path == images / "train0.jpg"


def test_paths_hold_from_any_folder(root: Path, monkeypatch):
    monkeypatch.chdir(root.parent)
    item = next(iter(read_flickr8k(Path("flickr8k"))))
    assert item.path == root / "Flicker8k_Dataset" / "train0.jpg"


@pytest.mark.parametrize("missing", ["Flicker8k_Dataset", "Flickr8k_text"])
def test_a_missing_folder_is_named(root: Path, missing: str):
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(UserError, match=f"{missing} is not a folder.*--root"):
        list(read_flickr8k(root))


@pytest.mark.parametrize("missing", ["Flickr8k.token.txt", "Flickr_8k.devImages.txt"])
def test_a_missing_file_is_named(root: Path, missing: str):
    (root / "Flickr8k_text" / missing).unlink()
    with pytest.raises(UserError, match=f"{missing} is not a file: give .* as --annotations"):
        list(read_flickr8k(root))


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ("\n", "line: it needs NAME.jpg#0<TAB>caption"),
        ("gone.jpg#0\tit is\na.jpg|0|b\n", r"is .*Flickr8k.token.txt:2: no tab between .*"),
        ("a.jpg|0|b\ntrain0.JPG#0\tA dog\n", r"is .*/Flicker8k_Dataset/train0.JPG: no such file"),
        ("extra.jpg#0\tin no list\n", r"is .*extra.jpg: in no split of .*/Flickr8k_text"),
    ],
)
def test_a_caption_file_with_no_usable_line_says_what_the_last_one_failed_by(
    root: Path, contents: str, why: str
):
    captions(root).write_text(contents)
    (root / "Flicker8k_Dataset" / "extra.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=f"Flickr8k.token.txt has no .*{why}$") as error:
        list(read_flickr8k(root))
    assert "\n" not in str(error.value)


def test_a_line_that_is_not_utf8_is_named(root: Path):
    path = captions(root)
    path.write_bytes(path.read_bytes() + b"train0.jpg#2\tcaf\xe9\n")
    with pytest.raises(UserError, match="Flickr8k.token.txt line 9 is not UTF-8"):
        list(read_flickr8k(root))


def test_a_image_in_two_splits_is_a_leak(root: Path):
    append(root / "Flickr8k_text" / "Flickr_8k.testImages.txt", "train1.jpg\n")
    with pytest.raises(UserError, match="testImages.txt line 2: train1.jpg is already.*'train'"):
        list(read_flickr8k(root))


def test_the_real_folder(flickr8k_root: Path):
    items = list(read_flickr8k(flickr8k_root))
    pairs = [item for item in items if isinstance(item, Pair)]
    assert Counter(pair.split for pair in pairs) == {"train": 30000, "val": 5000, "test": 5000}
    # 460 lines name 93 images that are not there; one of the names ends in .jpg.1.
    reasons = Counter(item.reason for item in items if isinstance(item, Rejected))
    assert reasons == {"no such file": 92, "malformed name": 1}
