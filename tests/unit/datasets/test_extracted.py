"""Images that come out of other files: names, reruns and foreign folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.errors import raises
from tf_dpce.datasets.extracted import ExtractedImages

JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train/dog.jpg", "dog.jpg"),
        (r"C:\photos\dog.jpg", "dog.jpg"),
        ("../../etc/passwd.png", "passwd.png"),
        ("..", "image.jpg"),
        ("", "image.jpg"),
        (".extracted", "extracted.jpg"),
        ("a\0b.jpg", "ab.jpg"),
        ("half \ud83d.jpg", "half ?.jpg"),
        ("row 7", "row 7.jpg"),
        # 200 bytes with the ending: 98 letters of 2 bytes and 4 bytes.
        ("ä" * 300 + ".png", "ä" * 98 + ".png"),
    ],
)
def test_a_name_is_the_last_part_of_a_path(tmp_path: Path, name: str, expected: str):
    path = ExtractedImages(tmp_path / "images").add(name, JPEG)
    assert path == tmp_path / "images" / expected
    assert path.read_bytes() == JPEG


def test_other_bytes_under_one_name_are_another_file(tmp_path: Path):
    added = [("a/x", PNG), ("b/x", PNG + b"1"), ("x-2", PNG + b"2"), ("c/x", PNG + b"3")]
    added += [("b/x", PNG + b"1"), ("a/x", PNG)]
    for _ in range(2):
        images = ExtractedImages(tmp_path / "images")
        names = [images.add(name, contents).name for name, contents in added]
        assert names == ["x.png", "x-2.png", "x-2-2.png", "x-3.png", "x-2.png", "x.png"]
    assert {path.name: path.read_bytes() for path in images.folder.glob("*.png")} == {
        "x.png": PNG,
        "x-2.png": PNG + b"1",
        "x-2-2.png": PNG + b"2",
        "x-3.png": PNG + b"3",
    }


def test_a_rerun_replaces_what_was_extracted_and_nothing_else(tmp_path: Path):
    folder, calls = tmp_path / "images", []
    ExtractedImages(folder).add("old.png", PNG)
    images = ExtractedImages(folder, before=lambda: calls.append(len(list(folder.glob("*.png")))))
    assert calls == [] and (folder / "old.png").is_file(), "nothing is changed before an image"
    images.add("new.png", PNG), images.add("newer.png", PNG)
    assert calls == [1] and not (folder / "old.png").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.jpg").write_bytes(JPEG)
    with raises("extracted.folder", foreign):
        ExtractedImages(foreign, before=lambda: calls.append(0)).add("a.jpg", JPEG)
    assert [path.name for path in foreign.iterdir()] == ["mine.jpg"] and calls == [1]
