"""The splits of Karpathy and Fei-Fei (CVPR 2015): Flickr8k, Flickr30k and MSCOCO in one format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tf_dpce.sources.json_file import Node, read_annotations
from tf_dpce.sources.listing import Listing, listed_pairs
from tf_dpce.sources.pair import Pair, Rejected
from tf_dpce.sources.paths import existing_folder
from tf_dpce.sources.splits import check_split, picture_name, read_split_file

# What is left of MSCOCO's validation pictures; all who compare with these splits train on it.
_TRAINED_ON = "restval"
_REMEDY = "give Karpathy's dataset_flickr8k.json, dataset_flickr30k.json or dataset_coco.json"


def load_karpathy(annotations: Path) -> Node:
    """Reads a file of Karpathy's whole.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    return read_annotations(annotations, f"{_REMEDY} as --annotations")


def karpathy_dataset(listed: Node) -> str:
    """Returns the name that a file gives its data set, such as `coco`; empty where it gives none.

    Raises:
        UserError: the name is no text.
    """
    return listed["dataset"].text() if "dataset" in listed else ""


def read_karpathy(
    listed: Node, root: Path, split_file: Path | None = None
) -> Iterator[Pair | Rejected]:
    """Reads pictures, captions and splits; every picture is an instance of its own.

    All captions of a picture are kept, as they were written (`raw`): MSCOCO has six or seven for
    some. The split `restval` is training.

    Args:
        listed: what `load_karpathy` returns.
        root: folder of the pictures; for MSCOCO the one that holds `train2014` and `val2014`.
        split_file: lines of `image<TAB>split`, in place of the file's own splits.

    Yields:
        A `Pair` for each caption, a `Rejected` for each picture that has none, is listed twice or
        is not in the split file.

    Raises:
        UserError: the folder is missing, the file is of another shape, a split is unknown, or no
            picture can be used.
    """
    root = existing_folder(root, "give that of the pictures as --root")
    splits = read_split_file(split_file) if split_file else None
    listings = (_listing(picture, own_split=splits is None) for picture in listed["images"].items())
    yield from listed_pairs(listed.file, listings, root, splits)


def _listing(picture: Node, own_split: bool) -> Listing:
    folder = picture["filepath"].text() if "filepath" in picture else ""
    file = picture_name(picture["filename"].text())
    image = picture_name(os.path.join(folder, file)) if file else ""
    captions = tuple(sentence["raw"].text() for sentence in picture["sentences"].items())
    split = _split(picture) if own_split else None
    return Listing(image, captions, split, image, picture.where)


def _split(picture: Node) -> str:
    split = picture["split"].text()
    return "train" if split == _TRAINED_ON else check_split(split, picture.where)
