"""What every reader yields: pairs of an image and a caption, and what it had to reject."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tf_dpce.errors import UserError

SPLITS = ("train", "val", "test")

# Reasons of rejection that several modules give.
NO_FILE = "no such file"
NO_NAME = "no name of an image"
NO_CAPTION = "no caption"
IN_NO_SPLIT = "in no split"


class Origin(NamedTuple):
    """The place in a file that says something.

    Attributes:
        path: the file.
        place: the place in it, such as `line 3`, `row 3` or `images[3].split`.
        line: number of the line or row, counted from 1; None in JSON.
    """

    path: Path
    place: str = ""
    line: int | None = None

    @classmethod
    def of_line(cls, path: Path, number: int) -> Origin:
        """Returns a line of a file."""
        return cls(path, f"line {number}", number)

    def __str__(self) -> str:
        return f"{self.path} {self.place}".rstrip()

    def error(self, code: str, message: str) -> UserError:
        """Returns an error whose message begins with this place."""
        return UserError(code, f"{self}: {message}", self.path, self.line)


@dataclass(frozen=True, slots=True)
class Pair:
    """One caption of one image.

    Attributes:
        image_id: name of the image; its captions are never negatives of one another.
        path: absolute path of the image.
        caption: the caption.
        split: one of `SPLITS`.
        instance: class of the instance loss: the image itself, or the person it shows.
        origin: the place that lists the pair, for messages.
    """

    image_id: str
    path: Path
    caption: str
    split: str
    instance: str
    origin: Origin | None = field(default=None, compare=False)


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


def group_pairs(items: Iterable[Pair | Rejected]) -> tuple[list[Image], list[Rejected]]:
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
        pair = first.setdefault(item.image_id, item)
        for attribute in ("split", "instance"):
            values = getattr(pair, attribute), getattr(item, attribute)
            if values[0] != values[1]:
                subject = f"image {pair.image_id} has two values of {attribute}"
                raise _conflict("dataset.two_values", subject, values, (pair, item))
        captions.setdefault(item.image_id, []).append(item.caption)
    by_instance: dict[str, Pair] = {}
    for pair in first.values():
        other = by_instance.setdefault(pair.instance, pair)
        if other.split != pair.split:
            subject, values = (
                f"instance {pair.instance!r} is in two splits",
                (other.split, pair.split),
            )
            raise _conflict("dataset.leak", subject, values, (other, pair))
    images = [
        Image(pair.image_id, pair.path, tuple(captions[name]), pair.split, pair.instance)
        for name, pair in first.items()
    ]
    return images, rejected


def _conflict(
    code: str, subject: str, values: tuple[str, str], pairs: tuple[Pair, Pair]
) -> UserError:
    one, other = (
        f"{value!r} ({pair.origin or pair.image_id})"
        for value, pair in zip(values, pairs, strict=True)
    )
    origin = pairs[1].origin or Origin(pairs[1].path)
    message = f"{subject}, {one} and {other}: keep it in one"
    return UserError(code, message, origin.path, origin.line)
