"""Splits that a user gives in a file, or that are drawn by hash."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from tf_dpce.datasets.listing import SPLITS, Image, Origin
from tf_dpce.datasets.repeats import join_copies
from tf_dpce.datasets.text_files import Node, existing_file, read_json, read_lines
from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger
from tf_dpce.remote_path import AnyPath

if TYPE_CHECKING:
    from tf_dpce.datasets.names import ImageNames

TRAIN_SHARE = 0.8
VAL_SHARE = 0.1
_MOST_HELD_OUT = 5_000

FLICKR8K_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}

_OTHER_NAMES = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
    # All who compare with Karpathy's splits train on the rest of MSCOCO's validation images.
    "restval": "train",
}


def image_name(text: str) -> str:
    """Returns one spelling of an image's path, so that `./a.jpg` is `a.jpg` and no second image.

    It is empty if the path is, or names the folder itself.

    Example:
        >>> image_name(" ./photos//a.jpg "), image_name(""), image_name("./")
        ('photos/a.jpg', '', '')
    """
    path = os.path.normpath(text.strip())
    return "" if path == os.curdir else path


def read_split_file(path: AnyPath, names: ImageNames) -> dict[str, str]:
    """Returns the split of each image that a file puts into one.

    Args:
        path: lines of `image<TAB>split`; or Karpathy's JSON; or the folder of the official lists
            of Flickr8k, or one of these lists, beside which the others lie.
        names: the names of the images; those of the file are found in the same way.

    Raises:
        UserError: a file is missing or puts no image into a split; or it is malformed, or puts an
            image into a second split.
    """
    splits: dict[str, str] = {}
    if path.is_dir() or path.name in FLICKR8K_LISTS.values():
        lines = _flickr8k_lists(path if path.is_dir() else path.parent)
    else:
        lines = _karpathy(path) if path.suffix.lower() == ".json" else _lines(path)
    for origin, image, split in lines:
        name, split = names.find(image).image_id, check_split(split, origin)
        if splits.setdefault(name, split) != split:
            message = f"{shorten(name)} is already in the split {splits[name]!r}: keep it in one"
            raise origin.error("split.repeated", message)
    if not splits:
        message = f"{path} has no line: it needs lines of image<TAB>split"
        raise UserError("split.empty", message, path)
    return splits


def _lines(path: AnyPath) -> Iterator[tuple[Origin, str, str]]:
    for origin, line in read_lines(existing_file(path)):
        image, tab, split = line.partition("\t")
        if not tab or not image_name(image):
            message = f"not image<TAB>split but '{shorten(line)}': mend the line"
            raise origin.error("split.line", message)
        yield origin, image, split.strip()


def _flickr8k_lists(folder: AnyPath) -> Iterator[tuple[Origin, str, str]]:
    for split, file in FLICKR8K_LISTS.items():
        for origin, line in read_lines(existing_file(folder / file)):
            yield origin, line, split


def _karpathy(path: AnyPath) -> Iterator[tuple[Origin, str, str]]:
    for entry in read_json(path)["images"].items():
        yield entry.origin, karpathy_name(entry), entry["split"].text()


def karpathy_name(entry: Node) -> str:
    """Returns the path of an image in Karpathy's JSON; it is empty if there is no name."""
    folder = entry["filepath"].text() if "filepath" in entry else ""
    file = image_name(entry["filename"].text())
    return os.path.join(folder, file) if file else ""


def known_split(name: str) -> str | None:
    """Returns the split that a name stands for in data sets of today, None for any other name.

    Example:
        >>> known_split("validation"), known_split("Dev"), known_split("extra")
        ('val', 'val', None)
    """
    name = name.strip().lower()
    name = _OTHER_NAMES.get(name, name)
    return name if name in SPLITS else None


def check_split(name: str, origin: Origin) -> str:
    """Returns the split that a name stands for, or raises a `UserError` that names its place."""
    split = known_split(name)
    if split is None:
        message = f"split is '{shorten(name)}': it must be one of {', '.join(SPLITS)}"
        raise origin.error("split.name", message)
    return split


def drawn_splits(names: Iterable[str], seed: int) -> dict[str, str]:
    """Draws train, val or test for about eight, one and one of ten names.

    The draw is a hash, so that a name stays in its split whatever other names there are. Only if
    a split is left empty, one name of the largest split moves there.

    Example:
        >>> sorted(drawn_splits(["a.jpg", "b.jpg", "c.jpg"], seed=0).values())
        ['test', 'train', 'val']
    """
    draws = {name: _draw(name, seed) for name in names}
    splits = {}
    for name, draw in draws.items():
        held_out = "val" if draw < TRAIN_SHARE + VAL_SHARE else "test"
        splits[name] = "train" if draw < TRAIN_SHARE else held_out
    for empty in SPLITS:
        drawn = {split: [name for name in splits if splits[name] == split] for split in SPLITS}
        largest = max(drawn.values(), key=len)
        if not drawn[empty] and len(largest) > 1:
            splits[max(largest, key=draws.__getitem__)] = empty
    return splits


def complete_splits(images: Collection[Image], seed: int) -> None:
    """Gives a split to each image that has none, and draws a missing val or test from train.

    The draw is a hash of the seed and the instance, which copies share. If no image has a split,
    all are drawn; if val or test is missing, about a tenth of the training instances move there,
    5,000 at most. An image without a caption or a file will be rejected, so it fills no split.
    """
    captioned = [image for image in images if image.captions]
    join_copies(captioned)
    # Names alone can be split too, where no file is at hand.
    usable = [image for image in captioned if _has_file(image)] or captioned
    drawn = drawn_splits((image.instance for image in usable if image.split is None), seed)
    for image in images:
        image.split = image.split or drawn.get(image.instance, "train")
    for missing in sorted({"val", "test"} - {image.split for image in usable}):
        instances = {image.instance for image in usable if image.split == "train"}
        if len(instances) < 2:
            return
        held_out = held_out_splits(instances, seed, _MOST_HELD_OUT)
        moved = {name for name, split in held_out.items() if split == missing}
        for image in images:
            if image.split == "train" and image.instance in moved:
                image.split = missing
        logger.info(f"nothing is in the split {missing}: drew {len(moved):,} of train for it")


def _has_file(image: Image) -> bool:
    try:
        return image.path.is_file()
    except OSError:  # It may be longer than a name on a disk can be.
        return False


def split_in_name(name: str) -> str | None:
    """Returns the split that the name of a file or folder holds, or None.

    Example:
        >>> [split_in_name(name) for name in ("train2017", "captions_validation", "photos")]
        ['train', 'val', None]
    """
    found = {split for word in re.findall(r"[a-z]+", name.lower()) if (split := known_split(word))}
    return found.pop() if len(found) == 1 else None


def held_out_splits(names: Iterable[str], seed: int, held_out: int) -> dict[str, str]:
    """Draws `held_out` names each for val and test.

    The draw is a hash, so that the order of names does not matter. If `held_out` is more than a
    tenth of the names, a tenth is drawn.

    Example:
        >>> splits = held_out_splits(map(str, range(50)), seed=0, held_out=3)
        >>> [list(splits.values()).count(split) for split in SPLITS]
        [44, 3, 3]
    """
    ranked = sorted(set(names), key=lambda name: (_draw(name, seed), name))
    count = min(held_out, max(1, len(ranked) // 10))
    held = {"test": ranked[:count], "val": ranked[count : 2 * count], "train": ranked[2 * count :]}
    return {name: split for split, part in held.items() for name in part}


def _draw(name: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}\t{name}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
