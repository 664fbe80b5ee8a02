"""Small images and data sets that several tests use."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TRUNCATED = 0.6


def image(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (9, 7), **how) -> bytes:
    """Returns an image of noise-like stripes, encoded."""
    width, height = size
    bands = len(Image.new(mode, (1, 1)).getbands())
    depth = 2 if mode.startswith("I;16") else 1
    pixels = bytes(x * 37 % 256 for x in range(width * height * bands * depth))
    return encoded(Image.frombytes(mode, size, pixels), kind, **how)


def encoded(pixels: np.ndarray | Image.Image, kind: str, **how) -> bytes:
    """Returns the bytes of a file of this kind."""
    stream = io.BytesIO()
    drawn = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    drawn.save(stream, kind, **how)
    return stream.getvalue()


def bitmap_of_size(width: int, height: int, compression: int = 0) -> bytes:
    """Returns the header of a BMP of this size, 24 bits a pixel, and one pixel."""
    image = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<III", 57, 0, 54) + image + b"\x01\x02\x03"


def truncated(contents: bytes) -> bytes:
    return contents[: round(len(contents) * TRUNCATED)]


def write_flickr8k(root: Path, train: int = 6, val: int = 2, test: int = 2) -> Path:
    """Writes a clean Flickr8k of tiny images, two captions each, in the authors' layout."""
    images, texts = root / "Flicker8k_Dataset", root / "Flickr8k_text"
    images.mkdir(parents=True)
    texts.mkdir()
    captions, number = [], 0
    for split, count in (("train", train), ("dev", val), ("test", test)):
        names = [f"{split}{place}.jpg" for place in range(count)]
        (texts / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{n}\n" for n in names))
        for name in names:
            number += 1
            (images / name).write_bytes(image(size=(8 + number, 8)))
            captions += [f"{name}#0\tA {split} dog .", f"{name}#1\tThe dog number w{number} ."]
    (texts / "Flickr8k.token.txt").write_text("".join(f"{line}\n" for line in captions))
    return root


def write_images(folder: Path, names: Iterable[str]) -> Path:
    """Writes a tiny image for each name, in subfolders where names have them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {".png": "PNG", ".bmp": "BMP"}.get(Path(name).suffix, "JPEG")
        # What follows an image makes it another file than those of the same size.
        (folder / name).write_bytes(image(kind, size=(8 + len(name), 8)) + name.encode())
    return folder


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_flickr30k(root: Path, names: Iterable[str]) -> Path:
    """Writes a clean Flickr30k of tiny images, two captions each, in the authors' layout."""
    names = list(names)
    write_images(root / "flickr30k-images", names)
    lines = [f"{name}#{n}\tA dog , number {n} .\n" for name in names for n in range(2)]
    (root / "results_20130124.token").write_text("".join(lines))
    return root


# Four images of MSCOCO, two from either half, with their number, and one split of them.
COCO_IMAGES = {
    "train2014/COCO_train2014_000000000009.jpg": 9,
    "train2014/COCO_train2014_000000000025.jpg": 25,
    "val2014/COCO_val2014_000000000042.jpg": 42,
    "val2014/COCO_val2014_000000000073.jpg": 73,
}
COCO_SPLITS = dict(zip(COCO_IMAGES, ("train", "val", "test", "train"), strict=True))


def write_coco(root: Path) -> Path:
    """Writes a clean MSCOCO of four tiny images, two captions each, in the official layout."""
    write_images(root, COCO_IMAGES)
    for half in ("train2014", "val2014"):
        inside = {name: id for name, id in COCO_IMAGES.items() if name.startswith(half)}
        images = [
            {"license": 3, "file_name": name.split("/")[1], "height": 8, "width": 8, "id": id}
            for name, id in inside.items()
        ]
        # The official file does not keep the captions of an image together.
        annotations = [
            {"image_id": id, "id": 10 * id + n, "caption": f"A dog, number {n}.\n"}
            for n in range(2)
            for id in inside.values()
        ]
        value = {"info": {"year": 2014}, "images": images, "licenses": []}
        path = root / "annotations" / f"captions_{half}.json"
        write_json(path, value | {"annotations": annotations})
    return root


def karpathy_image(
    name: str, split: str, captions: Iterable[str] = ("A dog, number 0.", "A dog, number 1.")
) -> dict[str, Any]:
    """Returns an image as Karpathy's files list it; `filepath` is there for MSCOCO alone."""
    folder, _, file = name.rpartition("/")
    sentences = [
        {"tokens": raw.lower().replace(",", "").strip(" .").split(), "raw": raw, "imgid": 0}
        for raw in captions
    ]
    entry = {"sentids": [0, 1], "imgid": 0, "sentences": sentences, "split": split}
    return ({"filepath": folder, "cocoid": 0} if folder else {}) | {"filename": file} | entry


def karpathy_coco() -> list[dict[str, Any]]:
    """Returns the images of `COCO_SPLITS` as Karpathy lists them, the last one in `restval`."""
    splits = [*COCO_SPLITS.values()][:-1] + ["restval"]
    return [karpathy_image(name, split) for name, split in zip(COCO_SPLITS, splits, strict=True)]


def person_image(name: str, person: int, split: str) -> dict[str, Any]:
    """Returns an image as CUHK-PEDES lists it."""
    captions = ["The man wears a red coat.", f"A man in a coat, number {person}."]
    tokens = [["the", "man"], ["a", "man"]]
    entry = {"split": split, "captions": captions, "file_path": name, "processed_tokens": tokens}
    return entry | {"id": person}


def write_splits(path: Path, splits: dict[str, str]) -> Path:
    """Writes a split file."""
    path.write_text("".join(f"{image}\t{split}\n" for image, split in splits.items()))
    return path


class Steps:
    """A display for `run_context` that remembers the steps shown on it."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int | None]] = []

    @contextmanager
    def __call__(self, description: str, transient: bool = False) -> Iterator[Steps]:
        yield self

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        self.steps.append((done, total))


def digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a folder, by relative name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
