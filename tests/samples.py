"""Small pictures and data sets that several tests use."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image

TRUNCATED = 0.6


def picture(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (9, 7), **how) -> bytes:
    """Returns a picture of noise-like stripes, encoded."""
    width, height = size
    bands = len(Image.new(mode, (1, 1)).getbands())
    depth = 2 if mode.startswith("I;16") else 1
    pixels = bytes(x * 37 % 256 for x in range(width * height * bands * depth))
    stream = io.BytesIO()
    Image.frombytes(mode, size, pixels).save(stream, format=kind, **how)
    return stream.getvalue()


def animated_png() -> bytes:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, format="PNG", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def truncated(contents: bytes) -> bytes:
    return contents[: round(len(contents) * TRUNCATED)]


def write_flickr8k(root: Path, train: int = 6, val: int = 2, test: int = 2) -> Path:
    """Writes a clean Flickr8k of tiny pictures, two captions each, in the authors' layout."""
    images, texts = root / "Flicker8k_Dataset", root / "Flickr8k_text"
    images.mkdir(parents=True)
    texts.mkdir()
    captions, number = [], 0
    for split, count in (("train", train), ("dev", val), ("test", test)):
        names = [f"{split}{place}.jpg" for place in range(count)]
        (texts / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{n}\n" for n in names))
        for name in names:
            number += 1
            (images / name).write_bytes(picture(size=(8 + number, 8)))
            captions += [f"{name}#0\tA {split} dog .", f"{name}#1\tThe dog number w{number} ."]
    (texts / "Flickr8k.token.txt").write_text("".join(f"{line}\n" for line in captions))
    return root


def digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a folder, by relative name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
