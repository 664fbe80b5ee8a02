"""Flickr8k (Hodosh et al. 2013, JAIR 47) and Flickr30k (Young et al. 2014, TACL 2).

Both come in their authors' own layout: a folder of images, and a token file of lines
`NAME.jpg#0<TAB>caption`. Every image is an instance of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.expected_sizes import PUBLISHED
from tf_dpce.datasets.listing import Image, Rejected, usable_images
from tf_dpce.datasets.splits import assign_split, given_or_drawn_splits, read_split_file
from tf_dpce.datasets.text_files import existing_file, existing_folder, read_lines

FLICKR8K_SPLITS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}

_HELD_OUT = PUBLISHED["flickr30k"]["test"]


def read_flickr8k(
    root: Path,
    images: Path | None = None,
    annotations: Path | None = None,
    split_file: Path | None = None,
) -> Iterator[Image | Rejected]:
    """Reads Flickr8k.

    Args:
        root: folder that holds `Flicker8k_Dataset` and `Flickr8k_text`.
        images: folder of images, if it is not `root/Flicker8k_Dataset`.
        annotations: folder of text files, if it is not `root/Flickr8k_text`.
        split_file: lines of `image<TAB>split`, in place of the official lists.

    Yields:
        The images, and a `Rejected` for each line or image that cannot be used.

    Raises:
        UserError: a folder or file is missing or malformed, or no image can be used.
    """
    images = existing_folder(images or root / "Flicker8k_Dataset")
    folder = existing_folder(annotations or root / "Flickr8k_text")
    tokens = existing_file(folder / "Flickr8k.token.txt")
    splits: dict[str, str] = {}
    if split_file:
        splits = read_split_file(split_file)
    else:
        for split, file in FLICKR8K_SPLITS.items():
            for origin, line in read_lines(existing_file(folder / file)):
                assign_split(splits, line.strip(), split, origin)
    listed: dict[str, Image] = {}
    yield from _read_tokens(tokens, images, listed)
    yield from usable_images(tokens, listed.values(), images, splits, split_file or folder)


def read_flickr30k(
    root: Path,
    images: Path | None = None,
    annotations: Path | None = None,
    split_file: Path | None = None,
    seed: int = 0,
) -> Iterator[Image | Rejected]:
    """Reads Flickr30k.

    No split comes with these files. Without a split file 1,000 images each are drawn by hash for
    validation and test, which is nobody else's split: numbers measured on it stand alone.

    Args:
        root: folder that holds `flickr30k-images` and `results_20130124.token`.
        images: folder of images, if it is not `root/flickr30k-images`.
        annotations: the token file, if it is not `root/results_20130124.token`.
        split_file: lines of `image<TAB>split`.
        seed: seed of the drawn split.

    Yields:
        The images, and a `Rejected` for each line or image that cannot be used.

    Raises:
        UserError: a folder or file is missing or malformed, or no image can be used.
    """
    images = existing_folder(images or root / "flickr30k-images")
    tokens = existing_file(annotations or root / "results_20130124.token")
    listed: dict[str, Image] = {}
    yield from _read_tokens(tokens, images, listed)
    # A missing image keeps its place in the draw, which depends on the annotations alone.
    splits = given_or_drawn_splits(split_file, listed, seed, _HELD_OUT)
    yield from usable_images(tokens, listed.values(), images, splits, split_file)


def _read_tokens(tokens: Path, images: Path, listed: dict[str, Image]) -> Iterator[Rejected]:
    """Adds the images of a token file to `listed`, and yields the lines that cannot be used."""
    for origin, line in read_lines(tokens):
        key, tab, caption = line.partition("\t")
        if not tab:
            yield Rejected(str(origin), "no tab between name and caption")
            continue
        name = key.partition("#")[0]
        image = listed.setdefault(name, Image(name, images / name, [], origin=origin))
        image.captions.append(caption.strip())
