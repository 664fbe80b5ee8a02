"""CUHK-PEDES in its authors' own layout (Li et al. 2017, CVPR): people, described in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.sources.json_file import Node, read_annotations
from tf_dpce.sources.listing import Listing, listed_pairs
from tf_dpce.sources.pair import Pair, Rejected
from tf_dpce.sources.paths import existing_folder
from tf_dpce.sources.splits import check_split, picture_name, read_split_file

IMAGE_FOLDER = "imgs"
CAPTION_FILE = "reid_raw.json"


def read_cuhk_pedes(
    root: Path,
    images: Path | None = None,
    annotations: Path | None = None,
    split_file: Path | None = None,
) -> Iterator[Pair | Rejected]:
    """Reads pictures, captions and the official split; the instance is the person.

    Args:
        root: folder that holds `imgs` and `reid_raw.json`.
        images: folder of pictures, where it is not `root/imgs`.
        annotations: the file, where it is not `root/reid_raw.json`.
        split_file: lines of `image<TAB>split`, in place of the official split. All pictures of a
            person belong into one split.

    Yields:
        A `Pair` for each caption, a `Rejected` for each picture that has none, is listed twice or
        is not in the split file.

    Raises:
        UserError: a folder or file is missing or of another shape, a split is unknown, or no
            picture can be used.
    """
    images = existing_folder(images or root / IMAGE_FOLDER, "give that of the pictures as --images")
    remedy = f"give the official {CAPTION_FILE} as --annotations"
    listed = read_annotations(annotations or root / CAPTION_FILE, remedy)
    splits = read_split_file(split_file) if split_file else None
    listings = (_listing(picture, own_split=splits is None) for picture in listed.items())
    yield from listed_pairs(listed.file, listings, images, splits)


def _listing(picture: Node, own_split: bool) -> Listing:
    image = picture_name(picture["file_path"].text())
    captions = tuple(caption.text() for caption in picture["captions"].items())
    split = check_split(picture["split"].text(), picture.where) if own_split else None
    return Listing(image, captions, split, picture["id"].key(), picture.where)
