"""MSCOCO captions of 2014 in the official layout (Chen et al. 2015, arXiv 1504.00325)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.datasets.annotations import ListedImage, listed_pairs
from tf_dpce.datasets.expected_sizes import PUBLISHED
from tf_dpce.datasets.pair import NO_NAME, Pair, Rejected
from tf_dpce.datasets.splits import given_or_drawn_splits, image_name
from tf_dpce.datasets.text_files import existing_folder, read_json

# The captions of each folder of images.
CAPTION_FILES = {
    "train2014": "captions_train2014.json",
    "val2014": "captions_val2014.json",
}

_HELD_OUT = PUBLISHED["mscoco"].images["test"]
_REMEDY = f"give the folder of the official {' and '.join(CAPTION_FILES.values())} as --annotations"


def read_coco(
    root: Path,
    annotations: Path | None = None,
    split_file: Path | None = None,
    seed: int = 0,
) -> Iterator[Pair | Rejected]:
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
        A `Pair` for each caption that can be used, a `Rejected` for the rest.

    Raises:
        UserError: a folder or file is missing or malformed, or no image can be used.
    """
    root = existing_folder(root, "give the one that holds train2014 and val2014 as --root")
    annotations = existing_folder(annotations or root / "annotations", _REMEDY)
    listed: dict[str, ListedImage] = {}
    for folder in CAPTION_FILES:
        yield from _read_half(annotations, folder, listed)
    # An image without a caption will be rejected, so it fills no split.
    captioned = (image for image, item in listed.items() if item.captions)
    splits = given_or_drawn_splits(split_file, captioned, seed, _HELD_OUT)
    yield from listed_pairs(annotations, listed.values(), root, splits, split_file)


def _read_half(
    annotations: Path, folder: str, listed: dict[str, ListedImage]
) -> Iterator[Rejected]:
    """Adds the images of one file to `listed`, and yields what cannot be used."""
    contents = read_json(annotations / CAPTION_FILES[folder], _REMEDY)
    by_number: dict[str, ListedImage] = {}
    for entry in contents["images"].items():
        name = image_name(entry["file_name"].text())
        if not name:
            yield Rejected(str(entry.origin), NO_NAME)
            continue
        image = f"{folder}/{name}"
        if image in listed:
            yield Rejected(str(entry.origin), "listed twice")
        item = listed.setdefault(image, ListedImage(image, entry.origin))
        by_number.setdefault(entry["id"].key(), item)
    for entry in contents["annotations"].items():
        caption, number = entry["caption"].text(), entry["image_id"].key()
        if number in by_number:
            by_number[number].captions.append(caption)
        else:
            yield Rejected(str(entry.origin), "caption of no image that is listed")
