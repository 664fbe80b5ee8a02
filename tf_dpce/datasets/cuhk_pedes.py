"""CUHK-PEDES in its authors' own layout (Li et al. 2017, CVPR): people, described in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.annotations import ListedImage, listed_pairs
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.splits import check_split, image_name, read_split_file
from tf_dpce.datasets.text_files import Node, existing_folder, read_json

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
        images: folder of images, if it is not `root/imgs`.
        annotations: the file, if it is not `root/reid_raw.json`.
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
    file = annotations or root / CAPTION_FILE
    contents = read_json(file, f"give the official {CAPTION_FILE} as --annotations")
    splits = read_split_file(split_file) if split_file else None
    listed = (_listed(entry, own_split=splits is None) for entry in contents.items())
    yield from listed_pairs(file, listed, images, splits, split_file)


def _listed(entry: Node, own_split: bool) -> ListedImage:
    return ListedImage(
        image=image_name(entry["file_path"].text()),
        origin=entry.origin,
        captions=[caption.text() for caption in entry["captions"].items()],
        split=check_split(entry["split"].text(), entry.origin) if own_split else None,
        instance=entry["id"].key(),
    )
