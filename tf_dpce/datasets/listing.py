"""From lists of images, as annotation files hold them, to pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tf_dpce.datasets.pair import IN_NO_SPLIT, Pair, Rejected
from tf_dpce.errors import UserError

# The reason where a file names no image at all.
NO_IMAGE = "no name of an image"


@dataclass(frozen=True, slots=True)
class Listing:
    """An image with all its captions, as a file lists it.

    Attributes:
        image: its path below the folder of images, in the one spelling of `image_name`; empty
            where the file names none.
        captions: sentences.
        split: the file's own, one of `SPLITS`; None where it names none.
        instance: class of the instance loss.
        origin: file and place, for messages.
    """

    image: str
    captions: tuple[str, ...]
    split: str | None
    instance: str
    origin: str


def listed_pairs(
    annotations: Path,
    listings: Iterable[Listing],
    folder: Path,
    splits: Mapping[str, str] | None = None,
) -> Iterator[Pair | Rejected]:
    """Turns listings into pairs; `validate_images` finds out whether an image is there.

    Args:
        annotations: where the listings are from, for messages.
        listings: of one data set.
        folder: that the images' paths start from, absolute.
        splits: of each image, by its name, in place of the listings' own.

    Yields:
        A `Pair` for each caption, a `Rejected` for each image that cannot be used, is listed
        once more, or is in `splits` alone. What is listed again with another split or instance
        gives pairs again, for which `group_pairs` raises an error that names both places.

    Raises:
        UserError: no image can be used.
    """
    first: dict[str, Listing] = {}
    last: Rejected | None = None
    unlisted = dict.fromkeys(splits or ())
    for listing in listings:
        unlisted.pop(listing.image, None)
        if splits is not None:
            listing = replace(listing, split=splits.get(listing.image))
        path = folder / listing.image
        reason = _reason(listing, first)
        if reason:
            # Without a name its place is all that tells it from others.
            last = Rejected(str(path) if listing.image else listing.origin, reason)
            yield last
            continue
        for caption in listing.captions:
            image, split, instance = listing.image, listing.split, listing.instance
            yield Pair(image, path, caption, split, instance, listing.origin)
    if not first:
        why = f", the last of them {last.path}: {last.reason}" if last else ""
        raise UserError(f"{annotations} lists no image that can be used{why}")
    yield from (Rejected(str(folder / image), "no caption") for image in unlisted)


def _reason(listing: Listing, first: dict[str, Listing]) -> str | None:
    if not listing.image:
        return NO_IMAGE
    if not listing.captions:
        return "no caption"
    if listing.split is None:
        return IN_NO_SPLIT
    told = first.setdefault(listing.image, listing)
    same = (told.split, told.instance) == (listing.split, listing.instance)
    return "listed twice" if same and told is not listing else None
