"""JPEG files that all sides of a pair read."""

from __future__ import annotations

import os
from pathlib import Path

CAPTIONS = 5
# In turn, so that all splits have images. A tenth each is held out.
_SPLITS = (*("train",) * 8, "val", "test")


def write_files(folder: Path, images: str | None, count: int) -> list[Path]:
    """Writes JPEG files of photographs' sides, or links to those of a folder, and returns them.

    Args:
        folder: where to; the files lie in its folder `images`.
        images: folder of JPEG files; None draws them.
        count: number of files.
    """
    own = folder / "images"
    own.mkdir()
    if images:
        for number, path in enumerate(sorted(Path(images).glob("*.jp*g"))[:count]):
            os.symlink(path.resolve(), own / f"{number:05d}.jpg")
    else:
        from benchmarks.material import random_images

        # A few at a time: those that are drawn are floats.
        for start in range(0, count, 64):
            for number, contents in enumerate(random_images(min(64, count - start), start), start):
                (own / f"{number:05d}.jpg").write_bytes(contents)
    return find_files(folder)


def find_files(folder: Path) -> list[Path]:
    """Returns the files that `write_files` wrote."""
    return sorted((folder / "images").iterdir())


def write_table(folder: Path, words: int = 1_000) -> Path:
    """Writes a table of the files with captions of ten words and a split, and returns it."""
    from benchmarks.material import random_captions

    files = find_files(folder)
    captions = random_captions(CAPTIONS * len(files), words)
    lines = ["image\tcaption\tsplit"]
    for number, path in enumerate(files):
        own = captions[CAPTIONS * number : CAPTIONS * (number + 1)]
        lines += [f"{path.name}\t{text}\t{_SPLITS[number % len(_SPLITS)]}" for text in own]
    table = folder / "table.tsv"
    table.write_text("".join(f"{line}\n" for line in lines))
    return table
