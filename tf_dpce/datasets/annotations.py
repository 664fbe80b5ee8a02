"""From images as annotation files list them to pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tf_dpce.datasets.pair import IN_NO_SPLIT, NO_CAPTION, NO_NAME, Origin, Pair, Rejected
from tf_dpce.errors import UserError


@dataclass(slots=True)
class ListedImage:
    """An image with all its captions, as a file lists it.

    Attributes:
        image: its path below the folder of images, as `image_name` spells it; empty if there is
            none.
        origin: the place that lists it.
        captions: its captions.
        split: the split that the file names, one of `SPLITS`; None if it names none.
        instance: class of the instance loss; by default the image itself.
        fault: the reason why the image cannot be used; empty if there is none.
    """

    image: str
    origin: Origin
    captions: list[str] = field(default_factory=list)
    split: str | None = None
    instance: str = ""
    fault: str = ""

    def __post_init__(self) -> None:
        self.instance = self.instance or self.image


def listed_pairs(
    annotations: Path,
    listed: Iterable[ListedImage],
    folder: Path,
    splits: Mapping[str, str] | None = None,
    split_file: Path | None = None,
) -> Iterator[Pair | Rejected]:
    """Turns listed images into pairs; `validate_images` finds out whether an image is there.

    Args:
        annotations: the file or folder that lists the images, for messages.
        listed: the images of a data set.
        folder: the absolute folder that the images' paths start from.
        splits: split of each image by its name; replaces those that the files name.
        split_file: the file that `splits` is from, for messages.

    Yields:
        A `Pair` for each caption, a `Rejected` for each image that cannot be used, is listed
        again, or is in `splits` alone. An image that is listed again with another split or
        instance gives pairs again, for which `group_pairs` raises an error that names both places.

    Raises:
        UserError: no image can be used.
    """
    first: dict[str, ListedImage] = {}
    last = ""
    unlisted = dict.fromkeys(splits or ())
    for item in listed:
        unlisted.pop(item.image, None)
        if splits is not None:
            item.split = splits.get(item.image)
        path = folder / item.image
        if reason := _reason(item, first):
            rejected = Rejected(str(path) if item.image else str(item.origin), reason)
            of = f" of {split_file}" if split_file and reason == IN_NO_SPLIT else ""
            last = f", the last of them {rejected.path}: {reason}{of}"
            yield rejected
        else:
            for caption in item.captions:
                yield Pair(item.image, path, caption, item.split, item.instance, item.origin)
    if not first:
        message = f"{annotations} lists no image that can be used{last}"
        raise UserError("dataset.no_image", message, annotations)
    yield from (Rejected(str(folder / image), NO_CAPTION) for image in unlisted)


def _reason(item: ListedImage, first: dict[str, ListedImage]) -> str:
    if not item.image:
        return NO_NAME
    if item.fault:
        return item.fault
    if not item.captions:
        return NO_CAPTION
    if item.split is None:
        return IN_NO_SPLIT
    known = first.setdefault(item.image, item)
    same = (known.split, known.instance) == (item.split, item.instance)
    return "listed twice" if same and known is not item else ""
