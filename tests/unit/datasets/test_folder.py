"""Images with a text beside each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.errors import raises
from tests.samples import write_images
from tf_dpce.datasets.captions_beside import NOT_JSON, NOT_UTF8
from tf_dpce.datasets.folder import read_folder
from tf_dpce.datasets.listing import Image, Rejected, gather

DOWNLOADED = json.dumps({"caption": "a dog", "status": "success", "key": "000"})
FAILED = json.dumps({"caption": "a dog", "status": "failed_to_download"})


@pytest.mark.parametrize(
    ("texts", "captions"),
    [
        ({".txt": b"\xef\xbb\xbfa dog\r\n\r\n it sleeps \na dog"}, ["a dog", "it sleeps"]),
        ({".txt": b"old\rMac"}, ["old", "Mac"]),
        ({".json": DOWNLOADED.encode()}, ["a dog"]),
        ({".json": b'{"caption": ["a dog", 5, "a cat"]}'}, ["a dog", "a cat"]),
        # The text counts, and the status of the download.
        ({".txt": b"a cat", ".json": DOWNLOADED.encode()}, ["a cat"]),
        ({".txt": b"a cat", ".json": FAILED.encode()}, "its download did not succeed"),
        ({".txt": b" \n"}, "no caption"),
        ({}, "no caption"),
        ({".json": b'{"width": 5}'}, "no caption"),
        ({".txt": b"caf\xe9"}, NOT_UTF8),
        ({".json": b"[1, 2]"}, NOT_JSON),
        ({".json": b"[" * 100_000}, NOT_JSON),
        ({".json": b'{"caption": "\\ud83d"}'}, NOT_UTF8),
    ],
)
def test_what_lies_beside_an_image(tmp_path: Path, texts: dict[str, bytes], captions):
    write_images(tmp_path, ["a/1.jpg", "b/2.PNG"])
    (tmp_path / "b" / "2.TXT").write_text("another")
    for ending, contents in texts.items():
        (tmp_path / "a" / f"1{ending}").write_bytes(contents)
    images, rejected = gather(read_folder(tmp_path))
    found = {image.image_id: image.captions for image in images}
    usable = isinstance(captions, list)
    assert found == {"b/2.PNG": ["another"], **({"a/1.jpg": captions} if usable else {})}
    assert rejected == ([] if usable else [Rejected(str(tmp_path / "a" / "1.jpg"), captions)])


def test_images_may_share_a_text(tmp_path: Path):
    write_images(tmp_path, ["1.jpg", "1.png", "2.jpg"])
    for name in ("1.txt", "1.json", "2.txt", "3.txt", "4.TXT"):
        (tmp_path / name).write_text(DOWNLOADED if name == "1.json" else f"text {name}")
    images, rejected = gather(read_folder(tmp_path))
    assert {image.image_id: image.captions for image in images} == {
        **dict.fromkeys(("1.jpg", "1.png"), ["text 1.txt"]),
        "2.jpg": ["text 2.txt"],
    }
    assert [Path(item.path).name for item in rejected] == ["3.txt", "4.TXT"]


def test_folders_named_after_splits_are_splits(tmp_path: Path):
    names = [*(f"train/{n}.jpg" for n in range(20)), "validation/a.jpg", "test/x/b.jpg"]
    write_images(tmp_path, names)
    for name in names:
        (tmp_path / name).with_suffix(".txt").write_text("a dog")
    images, _ = gather(read_folder(tmp_path))
    splits = {image.image_id: image.split for image in images}
    assert Counter(splits.values()) == {"train": 20, "val": 1, "test": 1}
    assert splits["validation/a.jpg"] == "val"
    assert images[-1] == Image(
        *("validation/a.jpg", tmp_path / "validation/a.jpg", ["a dog"], "val"), "validation/a.jpg"
    )
    # One more folder, and the names say nothing: all are drawn.
    write_images(tmp_path, ["more/c.jpg"])
    (tmp_path / "more" / "c.txt").write_text("a cat")
    assert Counter(image.split for image in gather(read_folder(tmp_path))[0])["train"] < 21


def test_what_is_no_pair_is_listed_or_left_alone(tmp_path: Path):
    write_images(
        tmp_path, ["a.jpg", "silent.jpg", ".hidden/b.jpg", "__MACOSX/._a.jpg", "@eaDir/a.jpg"]
    )
    for name in ("a.txt", "lone.txt", ".hidden/b.txt", "00000_stats.json"):
        (tmp_path / name).write_text("{}")
    images, rejected = gather(read_folder(tmp_path))
    assert [image.image_id for image in images] == ["a.jpg"]
    assert rejected == [
        Rejected(str(tmp_path / "lone.txt"), "no image beside this text"),
        Rejected(str(tmp_path / "silent.jpg"), "no caption"),
    ]
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").symlink_to("gone")
    (tmp_path / "lone.txt").rename(tmp_path / "silent.txt")
    images, (rejected,) = gather(read_folder(tmp_path))
    assert [image.image_id for image in images] == ["silent.jpg"]
    assert rejected.path == str(tmp_path / "a.jpg") and "cannot be read" in rejected.reason
    (tmp_path / "none").mkdir()
    with raises("dataset.no_image", tmp_path / "none"):
        gather(read_folder(tmp_path / "none"))
