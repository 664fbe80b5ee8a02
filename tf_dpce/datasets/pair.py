"""What every reader yields: pairs of an image and a caption, and what it had to refuse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tf_dpce.errors import UserError

SPLITS = ("train", "val", "test")

# Reasons that errors come back to, where nothing else is left.
NO_FILE = "no such file"
IN_NO_SPLIT = "in no split"


@dataclass(frozen=True, slots=True)
class Pair:
    """One caption of one image.

    Attributes:
        image_id: names the image; its captions are never negatives of one another.
        path: where the image lies, absolute, so that it is found from any folder.
        caption: one sentence.
        split: one of `SPLITS`.
        instance: class of the instance loss: the image itself, or the person it shows.
        origin: file and line, for messages.
    """

    image_id: str
    path: Path
    caption: str
    split: str
    instance: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An image, caption or line that cannot be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image with all its captions; the other attributes are those of `Pair`."""

    image_id: str
    path: Path
    captions: tuple[str, ...]
    split: str
    instance: str


def group_pairs(
    items: Iterable[Pair | Rejected],
) -> tuple[list[Image], list[Rejected]]:
    """Gathers the captions of each image, in the order of first appearance.

    Args:
        items: what a reader yields.

    Returns:
        The images and the rejected items, each in their order.

    Raises:
        UserError: an image has two splits or instances, or an instance lies in two splits.
    """
    first: dict[str, Pair] = {}
    captions: dict[str, list[str]] = {}
    rejected = []
    for item in items:
        if isinstance(item, Rejected):
            rejected.append(item)
            continue
        _check_same_image(first.setdefault(item.image_id, item), item)
        captions.setdefault(item.image_id, []).append(item.caption)
    _check_instances(first.values())
    images = [
        Image(pair.image_id, pair.path, tuple(captions[name]), pair.split, pair.instance)
        for name, pair in first.items()
    ]
    return images, rejected


def _check_same_image(first: Pair, later: Pair) -> None:
    for field in ("split", "instance"):
        one, other = getattr(first, field), getattr(later, field)
        if one != other:
            raise UserError(
                f"image {first.image_id} has two values of {field}, {one!r}{_at(first)} and "
                f"{other!r}{_at(later)}: give it one"
            )


def _check_instances(pairs: Iterable[Pair]) -> None:
    splits: dict[str, Pair] = {}
    for pair in pairs:
        first = splits.setdefault(pair.instance, pair)
        if first.split != pair.split:
            raise UserError(
                f"instance {pair.instance!r} is in two splits, {first.split!r}{_at(first)} and "
                f"{pair.split!r}{_at(pair)}: keep it in one"
            )


def _at(pair: Pair) -> str:
    return f" ({pair.origin or pair.image_id})"
