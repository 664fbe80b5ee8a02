"""MSCOCO captions of 2014 in the official layout (Chen et al. 2015, arXiv 1504.00325)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.expected_sizes import PUBLISHED
from tf_dpce.datasets.listing import NO_NAME, Image, Rejected, usable_images
from tf_dpce.datasets.splits import given_or_drawn_splits, image_name
from tf_dpce.datasets.text_files import existing_folder, read_json

# The folders of images; each has its captions in a file of its own.
_HALVES = ("train2014", "val2014")
_HELD_OUT = PUBLISHED["mscoco"]["test"]


def read_coco(
    root: Path,
    annotations: Path | None = None,
    split_file: Path | None = None,
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
    root = existing_folder(root)
    annotations = existing_folder(annotations or root / "annotations")
    listed: dict[str, Image] = {}
    for half in _HALVES:
        contents = read_json(annotations / f"captions_{half}.json")
        by_number: dict[str, Image] = {}
        for entry in contents["images"].items():
            name = image_name(entry["file_name"].text())
            if not name:
                yield Rejected(str(entry.origin), NO_NAME)
                continue
            name = f"{half}/{name}"
            if name in listed:
                yield Rejected(str(entry.origin), "listed twice")
            image = listed.setdefault(name, Image(name, root / name, [], origin=entry.origin))
            by_number.setdefault(entry["id"].key(), image)
        for entry in contents["annotations"].items():
            caption, number = entry["caption"].text(), entry["image_id"].key()
            if number in by_number:
                by_number[number].captions.append(caption)
            else:
                yield Rejected(str(entry.origin), "caption of no image that is listed")
    # An image without a caption will be rejected, so it fills no split.
    captioned = (name for name, image in listed.items() if image.captions)
    splits = given_or_drawn_splits(split_file, captioned, seed, _HELD_OUT)
    yield from usable_images(annotations, listed.values(), root, splits, split_file)
