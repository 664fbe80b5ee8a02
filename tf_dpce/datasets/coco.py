"""MSCOCO captions (Chen et al. 2015, arXiv 1504.00325), and one's own in the same format."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tf_dpce.datasets.expected_sizes import PUBLISHED
from tf_dpce.datasets.listing import NO_NAME, Image, Rejected, usable_images
from tf_dpce.datasets.names import ImageNames
from tf_dpce.datasets.repeats import keep_together
from tf_dpce.datasets.splits import (
    complete_splits,
    held_out_splits,
    image_name,
    read_split_file,
    split_in_name,
)
from tf_dpce.datasets.text_files import (
    Node,
    existing_folder,
    first_existing,
    read_json,
    usable_entries,
)
from tf_dpce.errors import UserError
from tf_dpce.remote_path import AnyPath

# The folders of images; each has its captions in a file of its own.
_HALVES = ("train2014", "val2014")
_HELD_OUT = PUBLISHED["mscoco"]["test"]


def read_coco(
    root: AnyPath,
    annotations: AnyPath | None = None,
    split_file: AnyPath | None = None,
    seed: int = 0,
) -> Iterator[Image | Rejected]:
    """Reads both official files as one data set; every image is an instance of its own.

    The official halves have no test captions, and the paper does not use them as a split: its
    authors drew 5,000 images each for validation and test from both together. Without a split
    file this function does the same by hash, which gives other images than theirs or Karpathy's.

    Args:
        root: folder that holds `train2014` and `val2014`.
        annotations: folder of the two files, if it is not `root/annotations`.
        split_file: lines of `image<TAB>split`, in which the image begins with its folder, as in
            `val2014/COCO_val2014_000000000042.jpg`.
        seed: seed of the drawn split.

    Yields:
        The images, and a `Rejected` for each image or caption that cannot be used.

    Raises:
        UserError: a folder or file is missing or malformed, or no image can be used.
    """
    names = ImageNames(root)
    annotations = existing_folder(annotations or root / "annotations")
    listed: dict[str, Image] = {}
    for half in _HALVES:
        yield from _read_file(annotations / f"captions_{half}.json", names, half, listed)
    if split_file:
        splits = read_split_file(split_file, names)
    else:
        # An image without a caption will be rejected, so it fills no split.
        captioned = (name for name, image in listed.items() if image.captions)
        splits = held_out_splits(captioned, seed, _HELD_OUT)
        keep_together(listed.values(), splits)
    yield from usable_images(annotations, listed.values(), names, splits, split_file)


def read_coco_captions(
    root: AnyPath | None = None,
    annotations: AnyPath | None = None,
    images: AnyPath | None = None,
    split_file: AnyPath | None = None,
    seed: int = 0,
) -> Iterator[Image | Rejected]:
    """Reads captions of one's own in COCO's format, or MSCOCO in its release of 2017.

    A file whose name holds a split, such as `captions_train2017.json`, is this split, and its
    images may lie in a folder of their own, such as `train2017`. `complete_splits` draws the rest.

    Args:
        root: folder that holds `annotations` with the files, or the files themselves, and
            `images` or the folders of the splits.
        annotations: a file, or a folder of files `captions*.json`, if it is another.
        images: folder of images, if it is another.
        split_file: lines of `image<TAB>split`, in place of any other split.
        seed: seed of the drawn splits.

    Yields:
        The images, and a `Rejected` for each image or caption that cannot be used.

    Raises:
        UserError: a folder or file is missing or malformed, or no image can be used.
    """
    annotations = annotations or first_existing(root or Path(), ("annotations", "."))
    files = [annotations]
    if annotations.is_dir():
        files = sorted(annotations.glob("captions*.json"))
    if not files:
        message = f"{annotations} holds no captions*.json: give the file as --annotations"
        raise UserError("dataset.layout", message, annotations)
    names = ImageNames(images or first_existing(root or annotations.parent, ("images", ".")))
    splits = read_split_file(split_file, names) if split_file else None
    listed: dict[str, Image] = {}
    for file in files:
        part = file.stem.removeprefix("captions_")
        before = len(listed)
        folder = part if (names.folder / part).is_dir() else ""
        yield from _read_file(file, names, folder, listed)
        for image in islice(listed.values(), before, None):
            image.split = split_in_name(part)
    if splits is None:
        complete_splits(listed.values(), seed)
    yield from usable_images(annotations, listed.values(), names, splits, split_file)


def _read_file(
    path: AnyPath, names: ImageNames, folder: str, listed: dict[str, Image]
) -> Iterator[Rejected]:
    """Adds the images of a file to `listed`, and yields what cannot be used."""
    contents = read_json(path)
    by_number: dict[str, Image] = {}

    def add_image(entry: Node) -> Rejected | None:
        name, number = entry["file_name"].text(), entry["id"].key()
        if not image_name(name):
            return Rejected(str(entry.origin), NO_NAME)
        file = names.find(name, folder)
        image = Image(file.image_id, file.path, [], origin=entry.origin)
        known = listed.setdefault(image.image_id, image)
        by_number.setdefault(number, known)
        return None if known is image else Rejected(str(entry.origin), "listed twice")

    def add_caption(entry: Node) -> Rejected | None:
        caption, number = entry["caption"].text(), entry["image_id"].key()
        if number not in by_number:
            return Rejected(str(entry.origin), "caption of no image that is listed")
        by_number[number].captions.append(caption)
        return None

    for key, add in (("images", add_image), ("annotations", add_caption)):
        yield from filter(None, usable_entries(contents[key], add))
