"""Thumbnails: upright, small, made once, and of nothing but what was indexed."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.errors import raises
from tests.samples import image, truncated
from tf_dpce.web.thumbnails import LARGE, SMALL, Thumbnails


def digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def record(path: Path) -> dict[str, str]:
    return {"id": path.name, "path": str(path), "content": digest(path.read_bytes())}


@pytest.fixture
def thumbnails(tmp_path: Path) -> Thumbnails:
    return Thumbnails(tmp_path / "cache")


def turned_corner(path: Path, orientation: int) -> Path:
    """Writes a JPEG of 60 x 40, dark in one quarter, with an orientation of EXIF."""
    pixels = np.full((40, 60, 3), 250, np.uint8)
    pixels[:20, :30] = 10
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, quality=95, exif=exif)
    return path


def test_each_orientation_is_shown_as_pillow_shows_it(thumbnails: Thumbnails, tmp_path: Path):
    for orientation in range(1, 9):
        path = turned_corner(tmp_path / f"{orientation}.jpg", orientation)
        with Image.open(io.BytesIO(thumbnails.jpeg(record(path), SMALL))) as shown:
            expected = ImageOps.exif_transpose(Image.open(path))
            assert shown.size == expected.size, "a small one is not enlarged"
            difference = np.abs(np.asarray(shown, int) - np.asarray(expected, int))
            assert difference.mean() < 3
            assert not shown.getexif(), "no metadata, such as a place, is handed out"


def test_sides_are_bounded(thumbnails: Thumbnails, tmp_path: Path):
    Image.new("RGB", (3000, 1000), "red").save(tmp_path / "wide.jpg")
    for side, expected in ((SMALL, (320, 107)), (LARGE, (1200, 400))):
        with Image.open(io.BytesIO(thumbnails.jpeg(record(tmp_path / "wide.jpg"), side))) as shown:
            # A JPEG is halved as often as its shorter side stays above 400: here to 1500 x 500.
            assert shown.size == (expected if side == SMALL else (1500, 500))


def test_one_is_made_once(thumbnails: Thumbnails, tmp_path: Path, monkeypatch):
    (tmp_path / "a.png").write_bytes(image("PNG", size=(400, 300)))
    asked = record(tmp_path / "a.png")
    first = thumbnails.jpeg(asked, SMALL)
    (stored,) = (tmp_path / "cache").rglob("*.jpg")
    assert stored.read_bytes() == first
    # A later one reads neither the image nor makes anything; nor does another process.
    (tmp_path / "a.png").unlink()
    monkeypatch.setattr("tf_dpce.web.thumbnails.small_jpeg", None)
    assert Thumbnails(tmp_path / "cache").jpeg(asked, SMALL) == first
    assert list((tmp_path / "cache").rglob("*.*")) == [stored]


def test_a_cache_that_cannot_be_written_costs_no_image(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(image("PNG"))
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert Thumbnails(tmp_path / "cache").jpeg(record(tmp_path / "a.png"), SMALL)


def test_what_was_not_indexed_is_not_shown(thumbnails: Thumbnails, tmp_path: Path):
    (tmp_path / "indexed.png").write_bytes(image("PNG"))
    (tmp_path / "secret.png").write_bytes(image("PNG", size=(50, 40)))
    asked = record(tmp_path / "indexed.png")

    def refused(expected: str) -> None:
        with raises("web.image") as caught:
            thumbnails.jpeg(asked, SMALL)
        assert str(caught.value) == expected, "without a path"

    os.replace(tmp_path / "secret.png", tmp_path / "other-secret.png")
    (tmp_path / "indexed.png").unlink()
    refused("missing")
    (tmp_path / "indexed.png").symlink_to("other-secret.png")
    refused("changed since it was indexed")
    (tmp_path / "indexed.png").unlink()
    os.mkfifo(tmp_path / "indexed.png")
    refused("changed since it was indexed")
    (tmp_path / "indexed.png").unlink()
    (tmp_path / "indexed.png").mkdir()
    refused("cannot be read")
    # Of such an index nobody knows whether a file is the one that was indexed.
    asked["content"] = None
    refused("of unknown content: embed and index again")


def test_a_file_of_another_kind_is_known_by_its_png(thumbnails: Thumbnails, tmp_path: Path):
    # `prepare` stores a WebP as a PNG, whose digest the index has.
    from tf_dpce.preprocessing.convert import to_png

    path = tmp_path / "a.webp"
    path.write_bytes(image("WEBP"))
    asked = {"path": str(path), "content": digest(to_png(path.read_bytes())[0])}
    assert thumbnails.jpeg(asked, SMALL)


def test_a_damaged_image_and_a_bomb_are_refused(thumbnails: Thumbnails, tmp_path: Path):
    path = tmp_path / "a.png"
    # 100,000 x 100,000 pixels by its header.
    bomb = image("PNG")[:16] + (100_000).to_bytes(4) * 2 + image("PNG")[24:]
    for contents, reason in (
        (b"<html>", "cannot be shown"),
        (truncated(image("PNG", size=(200, 200))), "cannot be shown"),
        (bomb, "too large to show"),
    ):
        path.write_bytes(contents)
        with raises("web.image") as caught:
            thumbnails.jpeg(record(path), SMALL)
        assert str(caught.value) == reason
    assert not (tmp_path / "cache").exists()
