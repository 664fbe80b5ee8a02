"""CUHK-PEDES in its authors' own layout (Li et al. 2017, CVPR): people, described in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.json_file import Node, read_annotations
from tf_dpce.datasets.listing import Listing, listed_pairs
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.paths import existing_folder
from tf_dpce.datasets.splits import check_split, image_name, read_split_file

IMAGE_FOLDER = "imgs"
CAPTION_FILE = "reid_raw.json"


def read_cuhk_pedes(
    root: Path,
    images: Path | None = None,
    annotations: Path | None = None,
    split_file: Path | None = None,
) -> Iterator[Pair | Rejected]:
    """Reads images, captions and the official split; the instance is the person.

    Args:
        root: folder that holds `imgs` and `reid_raw.json`.
        images: folder of images, where it is not `root/imgs`.
        annotations: the file, where it is not `root/reid_raw.json`.
        split_file: lines of `image<TAB>split`, in place of the official split. All images of a
            person belong into one split.

    Yields:
        A `Pair` for each caption, a `Rejected` for each image that has none, is listed twice or
        is not in the split file.

    Raises:
        UserError: a folder or file is missing or of another shape, a split is unknown, or no
            image can be used.
    """
    images = existing_folder(images or root / IMAGE_FOLDER, "give that of the images as --images")
    remedy = f"give the official {CAPTION_FILE} as --annotations"
    listed = read_annotations(annotations or root / CAPTION_FILE, remedy)
    splits = read_split_file(split_file) if split_file else None
    listings = (_listing(entry, own_split=splits is None) for entry in listed.items())
    yield from listed_pairs(listed.file, listings, images, splits)


def _listing(entry: Node, own_split: bool) -> Listing:
    image = image_name(entry["file_path"].text())
    captions = tuple(caption.text() for caption in entry["captions"].items())
    split = check_split(entry["split"].text(), entry.where) if own_split else None
    return Listing(image, captions, split, entry["id"].key(), entry.where)
