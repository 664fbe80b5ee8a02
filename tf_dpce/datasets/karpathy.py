"""The splits of Karpathy and Fei-Fei (CVPR 2015): Flickr8k, Flickr30k and MSCOCO in one format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.json_file import Node, read_annotations
from tf_dpce.datasets.listing import Listing, listed_pairs
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.paths import existing_folder
from tf_dpce.datasets.splits import check_split, image_name, read_split_file

# What is left of MSCOCO's validation images; all who compare with these splits train on it.
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
    """Reads images, captions and splits; every image is an instance of its own.

    All captions of an image are kept, as they were written (`raw`): MSCOCO has six or seven for
    some. The split `restval` is training.

    Args:
        listed: what `load_karpathy` returns.
        root: folder of the images; for MSCOCO the one that holds `train2014` and `val2014`.
        split_file: lines of `image<TAB>split`, in place of the file's own splits.

    Yields:
        A `Pair` for each caption, a `Rejected` for each image that has none, is listed twice or
        is not in the split file.

    Raises:
        UserError: the folder is missing, the file is of another shape, a split is unknown, or no
            image can be used.
    """
    root = existing_folder(root, "give that of the images as --root")
    splits = read_split_file(split_file) if split_file else None
    listings = (_listing(entry, own_split=splits is None) for entry in listed["images"].items())
    yield from listed_pairs(listed.file, listings, root, splits)


def _listing(entry: Node, own_split: bool) -> Listing:
    folder = entry["filepath"].text() if "filepath" in entry else ""
    file = image_name(entry["filename"].text())
    image = image_name(os.path.join(folder, file)) if file else ""
    captions = tuple(sentence["raw"].text() for sentence in entry["sentences"].items())
    split = _split(entry) if own_split else None
    return Listing(image, captions, split, image, entry.where)


def _split(entry: Node) -> str:
    split = entry["split"].text()
    return "train" if split == _TRAINED_ON else check_split(split, entry.where)
