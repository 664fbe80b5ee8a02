"""An encoder without a network: any bytes to a unit vector, the same one every time.

Search must be right for whatever vectors it is given; with these a test that kills a process a
dozen times takes seconds. The line with a real model is in tests/pipelines.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from tf_dpce.preprocessing.status import EMPTY, NO_KNOWN_WORD, OK, UNDECODABLE
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_images, find_texts

DIMENSION = 16
MODEL = "m" * 64


class PlainEncoder:
    """Vectors by the digest of the content; "bad..." cannot be encoded, "" is empty.

    Words that begin with "new" have inferred vectors.
    """

    dimension = DIMENSION

    def __init__(self) -> None:
        self.calls: list[int] = []

    def encode_with_status(
        self, kind: str, items: list[bytes] | list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        bad = UNDECODABLE if kind == "images" else NO_KNOWN_WORD
        contents = [item if isinstance(item, bytes) else item.encode() for item in items]
        self.calls.append(len(contents))
        codes = [EMPTY if not c else bad if c.startswith(b"bad") else OK for c in contents]
        rows = np.zeros((len(contents), DIMENSION), np.float32)
        for row, code in enumerate(codes):
            if code == OK:
                rows[row] = vector(contents[row])
        return rows, np.asarray(codes, np.int32)

    def count_inferred(self, captions: list[str]) -> np.ndarray:
        return np.array([caption.startswith("new") for caption in captions], np.int32)


def vector(content: bytes | str) -> np.ndarray:
    """The unit vector of a content, float32 [D]."""
    contents = content.encode() if isinstance(content, str) else content
    seed = int.from_bytes(hashlib.sha256(contents).digest()[:8])
    row = np.random.default_rng(seed).normal(size=DIMENSION)
    return (row / np.linalg.norm(row)).astype(np.float32)


def write_images(folder: Path, count: int, bad: tuple[int, ...] = ()) -> str:
    """Writes files `000.jpg`, ... whose bytes only `PlainEncoder` reads, and returns their glob."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = f"{number:03d}.jpg"
        (folder / name).write_bytes((b"bad " if number in bad else b"image ") + name.encode())
    return str(folder / "*.jpg")


def write_texts(path: Path, texts: list[str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return str(path)


def embed_images(folder: Path, count: int, out: Path, **options) -> Path:
    embed(PlainEncoder(), find_images([write_images(folder, count)]), out, MODEL, **options)
    return out


def embed_texts(path: Path, texts: list[str], out: Path, **options) -> Path:
    embed(PlainEncoder(), find_texts([write_texts(path, texts)]), out, MODEL, **options)
    return out


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name, with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def embedded(folder: Path, kind: str) -> np.ndarray:
    """All vectors of a folder, in order."""
    return np.concatenate([np.load(path) for path in sorted(folder.glob(f"{kind}-*.npy"))])


def indexed(folder: Path, kind: str) -> np.ndarray:
    """All vectors of a folder, in order, as an index keeps them: rounded to float16."""
    return embedded(folder, kind).astype(np.float16).astype(np.float32)
