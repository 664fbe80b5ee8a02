"""MSCOCO captions of 2014 in the official layout (Chen et al. 2015, arXiv 1504.00325)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tf_dpce.datasets.expected_sizes import PUBLISHED
from tf_dpce.datasets.json_file import Node, read_annotations
from tf_dpce.datasets.listing import NO_IMAGE, Listing, listed_pairs
from tf_dpce.datasets.pair import Pair, Rejected
from tf_dpce.datasets.paths import existing_folder
from tf_dpce.datasets.splits import given_or_drawn_splits, image_name

# The captions of each folder of images.
CAPTION_FILES = {
    "train2014": "captions_train2014.json",
    "val2014": "captions_val2014.json",
}
ANNOTATION_FOLDER = "annotations"

_HELD_OUT = PUBLISHED["mscoco"].images["test"]
_REMEDY = f"give the folder of the official {' and '.join(CAPTION_FILES.values())} as --annotations"


def read_mscoco(
    root: Path,
    annotations: Path | None = None,
    split_file: Path | None = None,
    seed: int = 0,
) -> Iterator[Pair | Rejected]:
    """Reads both official files as one data set; every image is an instance of its own.

    The official halves have no test captions, and the paper does not use them as a split: its
    authors drew 5,000 images each for validation and test from both together. Without a split
    file the same is done here by hash, which gives other images than theirs or Karpathy's.

    Args:
        root: folder that holds `train2014` and `val2014`.
        annotations: folder of the two files, where it is not `root/annotations`.
        split_file: lines of `image<TAB>split`, where the image begins with its folder, as in
            `val2014/COCO_val2014_000000000042.jpg`.
        seed: of the drawn split.

    Yields:
        A `Pair` for each caption that can be used, a `Rejected` for the rest.

    Raises:
        UserError: a folder or file is missing or malformed, or no image can be used.
    """
    root = existing_folder(root, "give the one that holds train2014 and val2014 as --root")
    annotations = existing_folder(annotations or root / ANNOTATION_FOLDER, _REMEDY)
    told, rejected = _read_captions(annotations)
    yield from rejected
    # An image without a caption will be refused, so it fills no split.
    captioned = (image for image, entry in told.items() if entry.captions)
    splits = given_or_drawn_splits(split_file, captioned, seed, _HELD_OUT)
    listings = (entry.listing() for entry in told.values())
    yield from listed_pairs(annotations, listings, root, splits)


@dataclass(slots=True)
class _Told:
    """An image, and its captions so far."""

    image: str
    origin: str
    captions: list[str] = field(default_factory=list)

    def listing(self) -> Listing:
        return Listing(self.image, tuple(self.captions), None, self.image, self.origin)


def _read_captions(annotations: Path) -> tuple[dict[str, _Told], list[Rejected]]:
    """Returns the images of both files by name, and what cannot be used."""
    told: dict[str, _Told] = {}
    rejected: list[Rejected] = []
    for folder, file in CAPTION_FILES.items():
        listed = read_annotations(annotations / file, _REMEDY)
        by_number: dict[str, _Told] = {}
        for entry in listed["images"].items():
            name = image_name(entry["file_name"].text())
            if not name:
                rejected.append(Rejected(entry.where, NO_IMAGE))
                continue
            image = f"{folder}/{name}"
            if image in told:
                rejected.append(Rejected(entry.where, "listed twice"))
            known = told.setdefault(image, _Told(image, entry.where))
            by_number.setdefault(entry["id"].key(), known)
        rejected += _add_captions(by_number, listed["annotations"])
    return told, rejected


def _add_captions(by_number: dict[str, _Told], annotations: Node) -> Iterator[Rejected]:
    for annotation in annotations.items():
        caption, entry = annotation["caption"].text(), annotation["image_id"].key()
        if entry in by_number:
            by_number[entry].captions.append(caption)
        else:
            yield Rejected(annotation.where, "caption of no image that is listed")
