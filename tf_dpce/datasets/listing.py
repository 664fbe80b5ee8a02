"""What every reader yields: images with their captions, and what it had to reject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import tracked
from tf_dpce.remote_path import AnyPath

if TYPE_CHECKING:
    from tf_dpce.datasets.names import ImageNames

SPLITS = ("train", "val", "test")

# Reasons of rejection that several modules give.
NO_FILE = "no such file"
ADDRESS = "an address, not a file: download it first"
NO_NAME = "no name of an image"
NO_CAPTION = "no caption"
IN_NO_SPLIT = "in no split"
UNKNOWN_SPLIT = "unknown split"


class Origin(NamedTuple):
    """The place in a file that says something.

    Attributes:
        path: the file.
        place: the place in it, such as `line 3`, `row 3` or `images[3].split`.
        line: number of the line or row, counted from 1; None in JSON.
    """

    path: AnyPath
    place: str = ""
    line: int | None = None

    @classmethod
    def of_line(cls, path: AnyPath, number: int) -> Origin:
        """Returns a line of a file."""
        return cls(path, f"line {number}", number)

    def __str__(self) -> str:
        return f"{self.path} {self.place}".rstrip()

    def error(self, code: str, message: str) -> UserError:
        """Returns an error whose message begins with this place."""
        return UserError(code, f"{self}: {message}", self.path, self.line)


@dataclass(slots=True)
class Image:
    """An image with all its captions.

    Attributes:
        image_id: its path below the folder of images, as `ImageNames` finds it; empty if there
            is none. Its captions are never negatives of one another.
        path: absolute path of the file; `validate_images` finds out whether it is there.
        captions: its captions.
        split: one of `SPLITS`; None until one is given or drawn.
        instance: class of the instance loss: the person it shows, or by default the image itself.
        origin: the place that lists it, for messages.
        content: digest of the file if another image's holds the same bytes, else empty; None until
            `mark_copies` has looked.
    """

    image_id: str
    path: AnyPath
    captions: Sequence[str]
    split: str | None = None
    instance: str = ""
    origin: Origin | None = field(default=None, compare=False)
    content: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        self.instance = self.instance or self.image_id


@dataclass(frozen=True, slots=True)
class Rejected:
    """An image, caption or line that cannot be used, and why."""

    path: str
    reason: str


def usable_images(
    annotations: AnyPath,
    listed: Iterable[Image | Rejected],
    names: ImageNames,
    splits: Mapping[str, str] | None = None,
    split_file: AnyPath | None = None,
) -> Iterator[Image | Rejected]:
    """Finds out which of the listed images can be used: the end of every reader.

    Args:
        annotations: the file or folder that lists the images, for messages.
        listed: the images of a data set, and what was rejected of it already.
        names: the names of the images, by which they were found.
        splits: split of each image by its name; replaces those that the images have.
        split_file: the file that `splits` is from, for messages.

    Yields:
        The images, and a `Rejected` for each that cannot be used, is listed again, or is in
        `splits` alone.

    Raises:
        UserError: no image can be used, or one is listed with two splits or instances.
    """
    first: dict[str, Image] = {}
    last = ""
    unlisted = dict.fromkeys(splits or ())
    for image in listed:
        if isinstance(image, Rejected):
            last = f", the last of them {image.path}: {image.reason}"
            yield image
            continue
        unlisted.pop(image.image_id, None)
        if splits is not None:
            image.split = splits.get(image.image_id)
        reason = _fault(image) or names.fault(image.image_id)
        if not reason:
            known = first.setdefault(image.image_id, image)
            check_same(known, image)
            reason = "" if known is image else "listed twice"
        if reason:
            is_file = image.image_id and reason != ADDRESS
            rejected = Rejected(str(image.path if is_file else image.origin), reason)
            of = f" of {split_file}" if split_file and reason == IN_NO_SPLIT else ""
            name = shorten(rejected.path, len(str(names.folder)) + 80)
            last = f", the last of them {name}: {reason}{of}"
            yield rejected
        else:
            yield image
    names.log_found()
    if not first:
        message = f"{annotations} lists no image that can be used{last}"
        raise UserError("dataset.no_image", message, annotations)
    yield from (Rejected(str(names.folder / name), NO_CAPTION) for name in unlisted)


def check_same(known: Image, again: Image) -> None:
    """Makes sure that an image which is listed twice has one split and one instance.

    Raises:
        UserError: it has two; the message names both places.
    """
    for attribute in ("split", "instance"):
        if getattr(known, attribute) != getattr(again, attribute):
            subject = f"image {shorten(known.image_id)} has two values of {attribute}"
            raise _conflict("dataset.two_values", subject, attribute, (known, again))


def gather(items: Iterable[Image | Rejected]) -> tuple[list[Image], list[Rejected]]:
    """Returns the images and the rejected items that a reader yields, each in their order.

    Raises:
        UserError: an instance lies in two splits.
    """
    images: list[Image] = []
    rejected: list[Rejected] = []
    by_instance: dict[str, Image] = {}
    for item in tracked(items, "images listed"):
        if isinstance(item, Rejected):
            rejected.append(item)
            continue
        images.append(item)
        other = by_instance.setdefault(item.instance, item)
        if other.split != item.split:
            subject = f"instance '{shorten(item.instance)}' is in two splits"
            raise _conflict("dataset.leak", subject, "split", (other, item))
    return images, rejected


def _fault(image: Image) -> str:
    if not image.image_id:
        return NO_NAME
    if not image.captions:
        return NO_CAPTION
    return "" if image.split else IN_NO_SPLIT


def _conflict(code: str, subject: str, attribute: str, images: tuple[Image, Image]) -> UserError:
    one, other = (
        f"'{shorten(getattr(image, attribute))}' ({image.origin or shorten(image.image_id)})"
        for image in images
    )
    origin = images[1].origin or Origin(images[1].path)
    message = f"{subject}, {one} and {other}: keep it in one"
    return UserError(code, message, origin.path, origin.line)
