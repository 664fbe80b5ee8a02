"""CUHK-PEDES in its authors' own layout (Li et al. 2017, CVPR): people, described in words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tf_dpce.datasets.listing import Image, Rejected, usable_images
from tf_dpce.datasets.names import ImageNames
from tf_dpce.datasets.splits import check_split, read_split_file
from tf_dpce.datasets.text_files import Node, read_json, usable_entries
from tf_dpce.remote_path import AnyPath


def read_cuhk_pedes(
    root: AnyPath,
    images: AnyPath | None = None,
    annotations: AnyPath | None = None,
    split_file: AnyPath | None = None,
) -> Iterator[Image | Rejected]:
    """Reads images, captions and the official split; the instance is the person.

    Args:
        root: folder that holds `imgs` and `reid_raw.json`.
        images: folder of images, if it is not `root/imgs`.
        annotations: the file, if it is not `root/reid_raw.json`.
        split_file: lines of `image<TAB>split`, in place of the official split. All images of a
            person belong into one split.

    Yields:
        The images, and a `Rejected` for each that has no caption, is listed twice or is not in
        the split file, and for each entry of another shape or with an unknown split.

    Raises:
        UserError: a folder or file is missing or of another shape as a whole, or no image can be
            used.
    """
    names = ImageNames(images or root / "imgs")
    file = annotations or root / "reid_raw.json"
    contents = read_json(file)
    splits = read_split_file(split_file, names) if split_file else None
    listed = usable_entries(contents, partial(_image, names=names, own_split=splits is None))
    yield from usable_images(file, listed, names, splits, split_file)


def _image(entry: Node, names: ImageNames, own_split: bool) -> Image:
    file = names.find(entry["file_path"].text())
    captions = [caption.text() for caption in entry["captions"].items()]
    split = check_split(entry["split"].text(), entry.origin) if own_split else None
    return Image(file.image_id, file.path, captions, split, entry["id"].key(), entry.origin)
