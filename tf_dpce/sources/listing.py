"""From lists of pictures, as annotation files hold them, to pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.sources.pair import Pair, Rejected


@dataclass(frozen=True, slots=True)
class Listing:
    """A picture with all its captions, as a file lists it.

    Attributes:
        image: its path below the folder of pictures, in the one spelling of `picture_name`.
        captions: sentences.
        split: one of `SPLITS`, None where it is in none.
        instance: class of the instance loss.
        origin: file and place, for messages.
    """

    image: str
    captions: tuple[str, ...]
    split: str | None
    instance: str
    origin: str


def listed_pairs(
    annotations: Path, listings: Iterable[Listing], folder: Path
) -> Iterator[Pair | Rejected]:
    """Turns listings into pairs; whether a picture is there is left to the audit.

    Args:
        annotations: where the listings are from, for messages.
        listings: of one data set.
        folder: that the pictures' paths start from, absolute.

    Yields:
        A `Pair` for each caption, a `Rejected` for each picture that cannot be used or is listed
        once more. What is listed again with another split or instance gives pairs again, for which
        `group_pairs` raises an error that names both places.

    Raises:
        UserError: no picture can be used.
    """
    first: dict[str, Listing] = {}
    last: Rejected | None = None
    for listing in listings:
        path = folder / listing.image
        reason = _reason(listing, first)
        if reason:
            last = Rejected(str(path), reason)
            yield last
            continue
        for caption in listing.captions:
            image, split, instance = listing.image, listing.split, listing.instance
            yield Pair(image, path, caption, split, instance, listing.origin)
    if not first:
        why = f", the last of them {last.path}: {last.reason}" if last else ""
        raise UserError(f"{annotations} lists no picture that can be used{why}")


def _reason(listing: Listing, first: dict[str, Listing]) -> str | None:
    if not listing.captions:
        return "no caption"
    if listing.split is None:
        return "in no split"
    told = first.setdefault(listing.image, listing)
    same = (told.split, told.instance) == (listing.split, listing.instance)
    return "listed twice" if same and told is not listing else None
