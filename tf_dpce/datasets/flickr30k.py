"""Flickr30k in its authors' own layout (Young, Lai, Hodosh and Hockenmaier 2014, TACL 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.expected_sizes import PUBLISHED
from tf_dpce.datasets.flickr_captions import read_tokens, token_names
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.paths import existing_file, existing_folder
from tf_dpce.datasets.splits import given_or_drawn_splits

IMAGE_FOLDER = "flickr30k-images"
CAPTION_FILE = "results_20130124.token"

_HELD_OUT = PUBLISHED["flickr30k"].images["test"]


def read_flickr30k(
    root: Path,
    images: Path | None = None,
    annotations: Path | None = None,
    split_file: Path | None = None,
    seed: int = 0,
) -> Iterator[Pair | Rejected]:
    """Reads the captions of Flickr30k, as `read_tokens` does.

    No split comes with these files. Without a split file 1,000 images each are drawn by hash for
    validation and test, which is nobody else's split: numbers measured on it stand alone.

    Args:
        root: folder that holds `flickr30k-images` and `results_20130124.token`.
        images: folder of images, where it is not `root/flickr30k-images`.
        annotations: the token file, where it is not `root/results_20130124.token`.
        split_file: lines of `image<TAB>split`.
        seed: of the drawn split.

    Yields:
        A `Pair` for each caption that can be used, a `Rejected` for the rest.

    Raises:
        UserError: a folder or file is missing or malformed, or no line can be used.
    """
    images = existing_folder(
        images or root / IMAGE_FOLDER, "give that of Flickr30k's images as --images"
    )
    captions = existing_file(
        annotations or root / CAPTION_FILE, f"give {CAPTION_FILE} as --annotations"
    )
    splits = given_or_drawn_splits(split_file, token_names(captions), seed, _HELD_OUT)
    yield from read_tokens(captions, images, splits, split_file)
