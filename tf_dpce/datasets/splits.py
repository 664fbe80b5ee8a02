"""Splits that a user gives in a file, or that are drawn by hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from tf_dpce.datasets.listing import SPLITS, Origin
from tf_dpce.datasets.text_files import existing_file, read_lines
from tf_dpce.errors import UserError, shorten

TRAIN_SHARE = 0.8
VAL_SHARE = 0.1

_OTHER_NAMES = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
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


def read_split_file(path: Path) -> dict[str, str]:
    """Returns the split of each image from lines of `image<TAB>split`.

    Raises:
        UserError: the file is missing or has no line; or a line is malformed, or puts an image
            into a second split.
    """
    splits: dict[str, str] = {}
    for origin, line in read_lines(existing_file(path)):
        image, tab, split = line.partition("\t")
        image = image_name(image)
        if not tab or not image:
            message = f"not image<TAB>split but '{shorten(line)}': mend the line"
            raise origin.error("split.line", message)
        assign_split(splits, image, check_split(split.strip(), origin), origin)
    if not splits:
        message = f"{path} has no line: it needs lines of image<TAB>split"
        raise UserError("split.empty", message, path)
    return splits


def assign_split(splits: dict[str, str], image: str, split: str, origin: Origin) -> None:
    """Adds an image to `splits`.

    Raises:
        UserError: it is already in another split.
    """
    if splits.setdefault(image, split) != split:
        message = f"{shorten(image)} is already in the split {splits[image]!r}: keep it in one"
        raise origin.error("split.repeated", message)


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


def given_or_drawn_splits(
    split_file: Path | None, names: Iterable[str], seed: int, held_out: int
) -> dict[str, str]:
    """Returns the splits of a split file, or draws `held_out` names each for val and test.

    The draw is a hash, so that the order of names does not matter. If `held_out` is more than a
    tenth of the names, a tenth is drawn.

    Raises:
        UserError: the split file is missing or malformed.

    Example:
        >>> splits = given_or_drawn_splits(None, map(str, range(50)), seed=0, held_out=3)
        >>> [list(splits.values()).count(split) for split in SPLITS]
        [44, 3, 3]
    """
    if split_file:
        return read_split_file(split_file)
    ranked = sorted(set(names), key=lambda name: (_draw(name, seed), name))
    count = min(held_out, max(1, len(ranked) // 10))
    held = {"test": ranked[:count], "val": ranked[count : 2 * count], "train": ranked[2 * count :]}
    return {name: split for split, part in held.items() for name in part}


def _draw(name: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}\t{name}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
