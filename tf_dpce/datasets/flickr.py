"""Flickr8k (Hodosh et al. 2013, JAIR 47) and Flickr30k (Young et al. 2014, TACL 2).

Both come in their authors' own layout, a folder of images and a token file of lines
`NAME.jpg#0<TAB>caption`, or in Kaggle's, whose file of captions has a header and commas or bars.
Every image is an instance of its own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator

from tf_dpce.datasets.expected_sizes import PUBLISHED
from tf_dpce.datasets.listing import Image, Rejected, usable_images
from tf_dpce.datasets.names import ImageNames
from tf_dpce.datasets.repeats import keep_together
from tf_dpce.datasets.splits import FLICKR8K_LISTS, held_out_splits, read_split_file
from tf_dpce.datasets.text_files import existing_file, first_existing, read_lines
from tf_dpce.logging import logger
from tf_dpce.remote_path import AnyPath

# What the folders and files are called: the authors' names come first.
FLICKR8K_IMAGES = ("Flicker8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset", "Images", "images")
FLICKR8K_CAPTIONS = ("Flickr8k_text/Flickr8k.token.txt", "Flickr8k.token.txt", "captions.txt")
FLICKR30K_IMAGES = (
    *("flickr30k-images", "flickr30k_images/flickr30k_images", "flickr30k_images"),
    *("Images", "images"),
)
FLICKR30K_CAPTIONS = (
    *("results_20130124.token", "results.csv", "flickr30k_images/results.csv", "captions.txt"),
)
_NO_LISTS = "give the unpacked Flickr8k_text.zip or dataset_flickr8k.json as --split-file"
_HELD_OUT = PUBLISHED["flickr30k"]["test"]
# The second bar is missing in one line of Kaggle's file.
_BARS = re.compile(r"([^|]+)\|\s*\d+\s*(?:\||\s)(.*)")

Parse = Callable[[str], tuple[str, str]]


def read_flickr8k(
    root: AnyPath,
    images: AnyPath | None = None,
    annotations: AnyPath | None = None,
    split_file: AnyPath | None = None,
    seed: int = 0,
) -> Iterator[Image | Rejected]:
    """Reads Flickr8k.

    The authors' layout holds the official split as three lists, Kaggle's does not. If they are
    found nowhere in `root`, 1,000 images each are drawn for validation and test.

    Args:
        root: folder that holds `Flicker8k_Dataset` and `Flickr8k_text`, or Kaggle's `Images` and
            `captions.txt`.
        images: folder of images, if it is another.
        annotations: folder of text files, or the file of captions, if it is another.
        split_file: lines of `image<TAB>split`, the folder of the official lists, or Karpathy's
            file, in place of the lists in `root`.
        seed: seed of the drawn split.

    Yields:
        The images, and a `Rejected` for each line or image that cannot be used.

    Raises:
        UserError: a folder or file is missing or malformed, or no image can be used.
    """
    names = ImageNames(images or first_existing(root, FLICKR8K_IMAGES))
    captions = annotations or root
    if captions.is_dir():
        captions = first_existing(captions, FLICKR8K_CAPTIONS)
    split_file = split_file or _official_split(captions.parent, root)
    if split_file is None:
        logger.warning(f"{root}: split drawn from --seed, no official one: {_NO_LISTS}")
    yield from _read(captions, names, split_file, seed)


def read_flickr30k(
    root: AnyPath,
    images: AnyPath | None = None,
    annotations: AnyPath | None = None,
    split_file: AnyPath | None = None,
    seed: int = 0,
) -> Iterator[Image | Rejected]:
    """Reads Flickr30k.

    No split comes with these files. Without a split file 1,000 images each are drawn by hash for
    validation and test, which is nobody else's split: numbers measured on it stand alone.

    Args:
        root: folder that holds `flickr30k-images` and `results_20130124.token`, or Kaggle's
            `flickr30k_images` and `results.csv`.
        images: folder of images, if it is another.
        annotations: the file of captions, if it is another.
        split_file: lines of `image<TAB>split`, or Karpathy's file.
        seed: seed of the drawn split.

    Yields:
        The images, and a `Rejected` for each line or image that cannot be used.

    Raises:
        UserError: a folder or file is missing or malformed, or no image can be used.
    """
    names = ImageNames(images or first_existing(root, FLICKR30K_IMAGES))
    captions = annotations or first_existing(root, FLICKR30K_CAPTIONS)
    yield from _read(captions, names, split_file, seed)


def _official_split(*folders: AnyPath) -> AnyPath | None:
    """Returns the folder of the three lists, or Karpathy's file, if one is in these folders."""
    for folder in folders:
        for place in (folder, folder / "Flickr8k_text"):
            if any((place / name).exists() for name in FLICKR8K_LISTS.values()):
                return place
    found = (folder / "dataset_flickr8k.json" for folder in folders)
    return next((path for path in found if path.is_file()), None)


def _read(
    captions: AnyPath, names: ImageNames, split_file: AnyPath | None, seed: int
) -> Iterator[Image | Rejected]:
    splits = read_split_file(split_file, names) if split_file else None
    listed: dict[str, Image] = {}
    yield from _read_captions(captions, names, listed)
    if splits is None:
        # A missing image keeps its place in the draw, which depends on the annotations alone.
        splits = held_out_splits(listed, seed, _HELD_OUT)
        keep_together(listed.values(), splits)
    yield from usable_images(captions, listed.values(), names, splits, split_file)


def _read_captions(
    path: AnyPath, names: ImageNames, listed: dict[str, Image]
) -> Iterator[Rejected]:
    """Adds the images of a file to `listed`, and yields the lines that cannot be used."""
    parse: Parse = _token
    for origin, line in read_lines(existing_file(path)):
        if header := _FORMATS.get(line.lower().replace(" ", "")):
            parse = header
            continue
        try:
            name, caption = parse(line)
        except (ValueError, csv.Error):
            yield Rejected(str(origin), "no name and caption")
            continue
        name, file = names.find(name)
        image = listed.setdefault(name, Image(name, file, [], origin=origin))
        image.captions.append(caption.strip())


def _token(line: str) -> tuple[str, str]:
    key, caption = line.split("\t", 1)
    return key.partition("#")[0], caption


def _commas(line: str) -> tuple[str, str]:
    """Each line is a row, so that a stray quote costs no other."""
    name, caption = next(csv.reader([line], strict=True))
    return name, caption


def _numbered_commas(line: str) -> tuple[str, str]:
    name, _, caption = next(csv.reader([line], strict=True))
    return name, caption


def _bars(line: str) -> tuple[str, str]:
    match = _BARS.fullmatch(line)
    if match is None:
        raise ValueError(line)
    return match[1], match[2]


_FORMATS: dict[str, Parse] = {
    "image,caption": _commas,
    "image_name,comment_number,comment": _numbered_commas,
    "image_name|comment_number|comment": _bars,
}
