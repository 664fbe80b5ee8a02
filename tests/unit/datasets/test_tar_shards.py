"""Tar shards: samples, splits, damage, and names that would lead elsewhere."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from tests.errors import raises
from tf_dpce.datasets.extracted import ExtractedImages
from tf_dpce.datasets.listing import Image, Rejected, gather
from tf_dpce.datasets.tar_shards import DAMAGED, NO_IMAGE, read_tar_shards, tar_files

JPEG = b"\xff\xd8\xff\xe0"
LINK = b"->"


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, contents in files.items():
            member = tarfile.TarInfo(name)
            if contents.startswith(LINK):
                member.type, member.linkname = tarfile.SYMTYPE, contents[2:].decode()
                contents = b""
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
    return path


def samples(first: int, count: int) -> dict[str, bytes]:
    files = {}
    for number in range(first, first + count):
        files[f"{number:03d}.jpg"] = JPEG + bytes([number])
        files[f"{number:03d}.txt"] = f"dog {number}".encode()
    return files


def read(root: Path, out: Path, **options) -> tuple[list[Image], list[Rejected]]:
    return gather(read_tar_shards(root, ExtractedImages(out), **options))


def test_a_sample_is_an_image_with_what_has_its_name(tmp_path: Path):
    files = {
        **{"a/000.JPG": JPEG, "a/000.txt": b"a dog\nit sleeps", "a/000.json": b'{"width": 3}'},
        **{"a/001.json": b'{"caption": "a cat", "status": "success"}', "a/001.webp": b"RIFF"},
        **{"b/001.jpg": JPEG + b"1", "b/001.seg.png": b"mask", "b/001.txt": b"a cow"},
        **{"c/002.txt": b"an image is missing", "c/003.png": b"", "c/003.txt": b"empty"},
        "d/001.jpg": JPEG + b"2",
    }
    path = shard(tmp_path / "0.tar.gz", files)
    images, rejected = read(path, tmp_path / "out")
    assert {image.image_id: image.captions for image in images} == {
        **{"000.jpg": ["a dog", "it sleeps"], "001.webp": ["a cat"], "001.jpg": ["a cow"]},
        "003.png": ["empty"],
    }
    assert all(image.path == tmp_path / "out" / image.image_id for image in images)
    assert (tmp_path / "out" / "001.jpg").read_bytes() == JPEG + b"1"
    assert rejected == [
        Rejected(f"{path} c/002", NO_IMAGE),
        Rejected(str(tmp_path / "out" / "001-2.jpg"), "no caption"),
    ]


def test_names_in_a_shard_lead_nowhere_and_links_are_refused(tmp_path: Path):
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"mine")
    files = {"../outside.jpg": JPEG, "../outside.txt": b"one", f"{tmp_path}/root.jpg": JPEG}
    files |= {f"{tmp_path}/root.txt": b"two", "ln.jpg": LINK + b"/etc/passwd", "ln.txt": b"three"}
    path = shard(tmp_path / "0.tar", files | samples(1, 1))
    images, rejected = read(path, tmp_path / "out" / "images")
    assert [image.image_id for image in images] == ["outside.jpg", "root.jpg", "001.jpg"]
    assert rejected == [Rejected(f"{path} ln", NO_IMAGE)]
    assert outside.read_bytes() == b"mine"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["0.tar", "out", "outside.jpg"]


def test_a_damaged_shard_is_named_wherever_it_is_cut(tmp_path: Path, caplog):
    whole = shard(tmp_path / "0.tar", samples(0, 3)).read_bytes()
    path, counts = tmp_path / "1.tar", []
    # Of each file a header and one block of contents; a shard ends with blocks of zeros.
    for size in (0, 100, 512, 900, 1024):
        path.write_bytes(whole[:size])
        caplog.clear()
        with raises("dataset.no_image", path):
            read(path, tmp_path / "out")
        assert str(path) in caplog.text, size
    for size in (2048, 2100, 4096, 6 * 1024):
        path.write_bytes(whole[:size])
        images, rejected = read(path, tmp_path / "out")
        counts.append(len(images))
        assert rejected == [Rejected(str(path), DAMAGED)], size
    assert counts == [1, 1, 2, 3]
    path.write_bytes(whole)
    assert [len(part) for part in read(path, tmp_path / "out")] == [3, 0]
    # A header that is spoilt in the middle would end the shard without a word.
    path.write_bytes(whole[:2048] + b"\xff" * 512 + whole[2560:])
    images, rejected = read(path, tmp_path / "out")
    assert len(images) == 1 and rejected == [Rejected(str(path), DAMAGED)]
    # The other shard is read; one sample is in both.
    images, rejected = read(tmp_path, tmp_path / "out")
    again = Rejected(str(tmp_path / "out" / "000.jpg"), "listed twice")
    assert len(images) == 3 and rejected == [Rejected(str(path), DAMAGED), again]


def test_which_shards_a_path_means(tmp_path: Path):
    for number in range(3):
        shard(tmp_path / "all" / f"{number:05d}.tar", samples(10 * number, 10))
    folder = tmp_path / "all"
    for root in (folder, folder / "*.tar", folder / "{00000..00002}.tar"):
        assert [path.name for path in tar_files(root)] == [f"{n:05d}.tar" for n in range(3)], root
    assert len(read(folder / "{00001..00002}.tar", tmp_path / "out")[0]) == 20
    empty = tmp_path / "empty"
    empty.mkdir()
    for root, missing in (
        (folder / "{00001..00003}.tar", folder / "00003.tar"),
        *((place, place) for place in (folder / "x*.tar", tmp_path / "nothing", empty)),
    ):
        with raises("shards.none", missing):
            read(root, tmp_path / "out")


@pytest.mark.parametrize("names", ["train-0 valid-0 test-0", "train/0 dev/0 test/0"])
def test_shards_named_after_splits_are_splits(tmp_path: Path, names: str):
    for number, name in enumerate(names.split()):
        # The keys of img2dataset begin anew in every shard; the images differ.
        jpeg, text = samples(number, 1).values()
        shard(tmp_path / f"{name}.tar", {"0.jpg": jpeg, "0.txt": text})
    images, _ = read(tmp_path, tmp_path / "out")
    splits = {image.captions[0]: image.split for image in images}
    assert splits == {"dog 0": "train", "dog 1": "val", "dog 2": "test"}
    shard(tmp_path / "more.tar", samples(5, 10))
    assert Counter(image.split for image in read(tmp_path, tmp_path / "out")[0]).total() == 13
