"""Flickr8k in its authors' own layout (Hodosh, Young and Hockenmaier 2013, JAIR 47)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.flickr_captions import read_tokens
from tf_dpce.datasets.lines import read_lines
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.paths import existing_file, existing_folder
from tf_dpce.datasets.splits import read_split_file
from tf_dpce.errors import UserError

IMAGE_FOLDER = "Flicker8k_Dataset"
TEXT_FOLDER = "Flickr8k_text"
CAPTION_FILE = "Flickr8k.token.txt"
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}

_REMEDY = "give the one that holds Flickr8k as --root"
_TEXT_REMEDY = "give the folder of all of Flickr8k's text files as --annotations"


def read_flickr8k(
    root: Path,
    images: Path | None = None,
    annotations: Path | None = None,
    split_file: Path | None = None,
) -> Iterator[Pair | Rejected]:
    """Reads the captions of Flickr8k, as `read_tokens` does.

    Args:
        root: folder that holds `Flicker8k_Dataset` and `Flickr8k_text`.
        images: folder of images, where it is not `root/Flicker8k_Dataset`.
        annotations: folder of text files, where it is not `root/Flickr8k_text`.
        split_file: lines of `image<TAB>split`, in place of the official lists.

    Yields:
        A `Pair` for each caption that can be used, a `Rejected` for the rest.

    Raises:
        UserError: a folder or file is missing, or no line can be used.
    """
    images = existing_folder(images or root / IMAGE_FOLDER, _REMEDY)
    annotations = existing_folder(annotations or root / TEXT_FOLDER, _REMEDY)
    splits = read_split_file(split_file) if split_file else _read_splits(annotations)
    captions = existing_file(annotations / CAPTION_FILE, _TEXT_REMEDY)
    yield from read_tokens(captions, images, splits, split_file or annotations)


def _read_splits(annotations: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, file in SPLIT_FILES.items():
        for number, line in read_lines(existing_file(annotations / file, _TEXT_REMEDY)):
            name = line.strip()
            if splits.setdefault(name, split) != split:
                raise UserError(
                    f"{annotations / file} line {number}: {name} is already in the split "
                    f"{splits[name]!r}; keep it in one"
                )
    return splits
