"""Names that nearly match: each kind finds its file, and what is ambiguous finds none."""

from __future__ import annotations

import logging
import os
import unicodedata
from pathlib import Path

import pytest

from tests.samples import write_images
from tf_dpce.datasets.listing import ADDRESS, Rejected, gather
from tf_dpce.datasets.names import AMBIGUOUS, ImageNames, nearest_name
from tf_dpce.datasets.table import read_table

FILES = ["sub dir/p1.jpg", "sub dir/p2.jpeg", "100%.png", "café.jpg", " spaced .jpg", "v1.2"]
FILES += [
    unicodedata.normalize("NFD", "größe.jpg"),
    "a#b?.jpg",
    "[x]*.jpg",
    "日本 🐕.jpg",
    "tab\t.jpg",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "pics", FILES)


def found(folder: Path, *names: str) -> list[str]:
    images = ImageNames(folder)
    files = [images.find(name) for name in names]
    assert all(file.path == images.folder / file.image_id for file in files)
    return [file.image_id for file in files]


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("./sub dir//p1.jpg", "sub dir/p1.jpg"),
        ("sub dir\\p1.jpg", "sub dir/p1.jpg"),
        ("E:\\data\\pics\\sub dir\\p1.jpg", "sub dir/p1.jpg"),
        ("e:/sub dir/p1.jpg", "sub dir/p1.jpg"),
        ("\\\\server\\share\\sub dir\\p1.jpg", "sub dir/p1.jpg"),
        ("/home/other/pics/sub dir/p1.jpg", "sub dir/p1.jpg"),
        ("file:///home/other/sub%20dir/p1.jpg", "sub dir/p1.jpg"),
        ("file:///C:/pics/sub%20dir/P1.JPG", "sub dir/p1.jpg"),
        ("file:sub%20dir/p1.jpg", "sub dir/p1.jpg"),
        ("https://example.org/pics/100%25.png", "100%.png"),
        ("https://example.org/pics/v1.2", "v1.2"),
        ("pics/sub dir/p1.jpg", "sub dir/p1.jpg"),
        ("~/pics/sub dir/p1.jpg", "sub dir/p1.jpg"),
        ("sub%20dir/p1.jpg", "sub dir/p1.jpg"),
        ("Sub Dir/P1.JPG", "sub dir/p1.jpg"),
        ("sub dir/p2", "sub dir/p2.jpeg"),
        ("SUB%20DIR\\P2", "sub dir/p2.jpeg"),
        (unicodedata.normalize("NFD", "café.jpg"), "café.jpg"),
        (unicodedata.normalize("NFD", "CAFÉ"), "café.jpg"),
        # The other way round: a zip file from a Mac.
        (unicodedata.normalize("NFC", "größe.jpg"), unicodedata.normalize("NFD", "größe.jpg")),
        # A percent sign of the file itself is no code, and other odd characters stay.
        *((name, name) for name in FILES if "/" not in name),
        ("  sub dir/p1.jpg ", "sub dir/p1.jpg"),
        # The last part alone is enough for an address; a relative path keeps its folders.
        ("https://example.org/sub dir/p1.jpg", "https://example.org/sub dir/p1.jpg"),
        ("other/100%.png", "other/100%.png"),
        ("sub dir/p3.jpg", "sub dir/p3.jpg"),
        ("sub dir", "sub dir"),
        ("a\0b/c.jpg", "a\0b/c.jpg"),
        ("x" * 9000, "x" * 9000),
        (" ", ""),
    ],
)
def test_a_name_finds_its_file_or_stays_as_it_is(folder: Path, written: str, file: str):
    images = ImageNames(folder)
    assert images.find(written).image_id == file
    if not images.fault(file):
        assert images.find(written).path == folder / file


def test_of_several_files_that_fit_none_is_taken(tmp_path: Path):
    write_images(tmp_path, ["A.jpg", "a.JPG", "b.jpg", "b.png", "c.jpg"])
    (tmp_path / "c.txt").write_text("a text beside an image is no image")
    assert found(tmp_path, "a.jpg", "b", "A.jpg", "c") == ["a.jpg", "b", "A.jpg", "c.jpg"]


def test_one_file_is_one_image_by_whatever_name(folder: Path, tmp_path: Path):
    (folder / "link.jpg").symlink_to("sub dir/p1.jpg")
    (folder / "linked").symlink_to("sub dir")
    (folder / "twice.jpg").symlink_to("linked/../link.jpg")
    (folder.parent / "again").symlink_to(folder)
    write_images(tmp_path, ["outside.jpg"])
    names = ["sub dir/p1.jpg", str(folder / "sub dir/p1.jpg"), "../pics/sub dir/p1.jpg"]
    names += ["link.jpg", "twice.jpg", "linked/p1.jpg", "../again/sub dir/p1.jpg"]
    assert set(found(folder, *names)) == {"sub dir/p1.jpg"}
    assert set(found(folder.parent / "again", *names[:1], names[3])) == {"sub dir/p1.jpg"}
    # Of a file elsewhere the first name stays.
    outside = ["../outside.jpg", str(tmp_path / "outside.jpg")]
    assert found(folder, *outside) == outside[:1] * 2
    # The links that a download cache is made of keep their names.
    (folder / "cached.jpg").symlink_to(tmp_path / "outside.jpg")
    assert found(folder, "cached.jpg", *outside) == ["cached.jpg"] * 3


def test_a_link_that_is_replaced_by_a_file_is_that_file(folder: Path):
    (folder / "link.jpg").symlink_to("sub dir/p1.jpg")
    images = ImageNames(folder)
    images.find("100%.png")  # which lists the folder
    (folder / "100%.png").replace(folder / "link.jpg")
    assert images.find("link.jpg").image_id == "link.jpg"


def test_each_folder_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(str(path)), scandir(path))[1])
    names = [f"sub dir/{case}{end}" for case in ("p1", "P2", "p3") for end in ("", ".jpg", ".gif")]
    found(folder, *names, *names)
    assert sorted(listed) == [str(folder), str(folder / "sub dir")]


def test_names_of_a_table_are_found_counted_and_never_mixed_up(tmp_path: Path, caplog):
    write_images(tmp_path / "pics", ["1.jpg", "2.jpg", "3.jpg"])
    rows = ["pics\\1.jpg,a", "1.JPG,b", "C:\\a\\2.jpg,c", "D:\\b\\2.jpg,d", "3,e", "3,f", "4.jpg,g"]
    rows.append("https://example.org/5.jpg,h")
    (tmp_path / "t.csv").write_text("\n".join(["image,caption", *rows, ""]))
    with caplog.at_level(logging.INFO, "tf_dpce"):
        images, rejected = gather(read_table(tmp_path / "t.csv", tmp_path / "pics"))
    assert {image.image_id: image.captions for image in images} == {
        **{"1.jpg": ["a", "b"], "3.jpg": ["e", "f"], "4.jpg": ["g"]}
    }
    # Two folders of another machine held a file 2.jpg each, of which one is here.
    assert rejected == [
        Rejected(str(tmp_path / "pics" / "2.jpg"), AMBIGUOUS),
        Rejected(f"{tmp_path / 't.csv'} line 9", ADDRESS),
    ]
    (line,) = [line for line in caplog.messages if "names of images" in line]
    # Four kinds: a backslash thrice; 1.JPG; 3; and before three names pics, C: and D:.
    for count in ("3 with \\ for /", "1 in another case", "1 without its", "3 with other folders"):
        assert count in line


def test_a_name_that_is_missing_has_a_nearest_one(folder: Path, tmp_path: Path):
    for missing, nearest in (
        ("sub dir/p1.png", "sub dir/p1.jpg"),
        ("subdir/p1.jpg", "sub dir"),
        ("100.png", "100%.png"),
        ("quite-other", ""),
    ):
        assert nearest_name(folder / missing) == (nearest and str(folder / nearest)), missing
    many = write_images(tmp_path / "many", [f"{number:05d}.jpg" for number in range(1200)])
    assert nearest_name(many / "01100.jpeg") == str(many / "01100.jpg")
