"""The splits of Karpathy and Fei-Fei (CVPR 2015): Flickr8k, Flickr30k and MSCOCO in one format."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tf_dpce.datasets.listing import Image, Rejected, usable_images
from tf_dpce.datasets.names import ImageNames
from tf_dpce.datasets.splits import check_split, karpathy_name, read_split_file
from tf_dpce.datasets.text_files import Node, read_json, usable_entries
from tf_dpce.remote_path import AnyPath


def read_karpathy(
    root: AnyPath, annotations: AnyPath, split_file: AnyPath | None = None
) -> Iterator[Image | Rejected]:
    """Reads images, captions and splits; every image is an instance of its own.

    An image keeps all its captions, as they were written (`raw`): MSCOCO has six or seven for
    some. The split `restval` is training.

    Args:
        root: folder of the images; for MSCOCO the one that holds `train2014` and `val2014`.
        annotations: Karpathy's file.
        split_file: lines of `image<TAB>split`, in place of the file's own splits.

    Yields:
        The images, and a `Rejected` for each that has no caption, is listed twice or is not in
        the split file, and for each entry of another shape or with an unknown split.

    Raises:
        UserError: the folder or file is missing, the file is of another shape as a whole, or no
            image can be used.
    """
    names = ImageNames(root)
    contents = read_json(annotations)
    splits = read_split_file(split_file, names) if split_file else None
    parse = partial(_image, names=names, own_split=splits is None)
    listed = usable_entries(contents["images"], parse)
    yield from usable_images(annotations, listed, names, splits, split_file)


def _image(entry: Node, names: ImageNames, own_split: bool) -> Image:
    file = names.find(karpathy_name(entry))
    captions = [sentence["raw"].text() for sentence in entry["sentences"].items()]
    split = check_split(entry["split"].text(), entry.origin) if own_split else None
    return Image(file.image_id, file.path, captions, split, origin=entry.origin)
