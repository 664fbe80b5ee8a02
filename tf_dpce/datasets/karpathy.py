"""The splits of Karpathy and Fei-Fei (CVPR 2015): Flickr8k, Flickr30k and MSCOCO in one format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.annotations import ListedImage, listed_pairs
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.splits import check_split, image_name, read_split_file
from tf_dpce.datasets.text_files import Node, existing_folder, read_json

# The rest of MSCOCO's validation images; all who compare with these splits train on it.
_TRAINED_ON = "restval"
_FILES = "dataset_flickr8k.json, dataset_flickr30k.json or dataset_coco.json"


def load_karpathy(annotations: Path) -> Node:
    """Reads a whole file of Karpathy's.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    return read_json(annotations, f"give Karpathy's {_FILES} as --annotations")


def karpathy_dataset(contents: Node) -> str:
    """Returns the name that a file gives its data set, such as `coco`; empty if it gives none.

    Raises:
        UserError: the name is no text.
    """
    return contents["dataset"].text() if "dataset" in contents else ""


def read_karpathy(
    contents: Node, root: Path, split_file: Path | None = None
) -> Iterator[Pair | Rejected]:
    """Reads images, captions and splits; every image is an instance of its own.

    An image keeps all its captions, as they were written (`raw`): MSCOCO has six or seven for
    some. The split `restval` is training.

    Args:
        contents: what `load_karpathy` returns.
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
    listed = (_listed(entry, own_split=splits is None) for entry in contents["images"].items())
    yield from listed_pairs(contents.origin.path, listed, root, splits, split_file)


def _listed(entry: Node, own_split: bool) -> ListedImage:
    folder = entry["filepath"].text() if "filepath" in entry else ""
    file = image_name(entry["filename"].text())
    image = image_name(os.path.join(folder, file)) if file else ""
    captions = [sentence["raw"].text() for sentence in entry["sentences"].items()]
    split = None
    if own_split:
        name = entry["split"].text()
        split = "train" if name == _TRAINED_ON else check_split(name, entry.origin)
    return ListedImage(image, entry.origin, captions, split)
