"""The published size of each data set, to find out whether prepared data is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """The size of a data set in one split of it.

    Attributes:
        images: by split.
        training_people: persons in training, None if every image is an instance of its own.
        other: key of another split of the same data set, which may be given in a file.
    """

    images: Mapping[str, int]
    training_people: int | None = None
    other: str | None = None


def _images(train: int, val: int, test: int) -> dict[str, int]:
    return {"train": train, "val": val, "test": test}


# Flickr30k and MSCOCO have no official split into three: theirs is the one in the authors' code,
# github.com/layumi/Image-Text-Embedding. After the slash stands the name in Karpathy's own file.
PUBLISHED: dict[str, Published] = {
    "flickr8k": Published(_images(6_000, 1_000, 1_000)),
    "flickr30k": Published(_images(29_783, 1_000, 1_000), other="karpathy/flickr30k"),
    "mscoco": Published(_images(113_287, 5_000, 5_000)),
    "cuhk_pedes": Published(_images(34_054, 3_078, 3_074), training_people=11_003),
    "karpathy/flickr8k": Published(_images(6_000, 1_000, 1_000)),
    "karpathy/flickr30k": Published(_images(29_000, 1_014, 1_000)),
    "karpathy/coco": Published(_images(113_287, 5_000, 5_000)),
}


def differences(
    name: str,
    images: Mapping[str, int],
    training_instances: int,
    rejected: str = "",
    given: bool = False,
) -> Iterator[str]:
    """Compares counts with the published ones.

    Args:
        name: key of `PUBLISHED`; with any other nothing is compared.
        images: by split.
        training_instances: classes of the instance loss.
        rejected: the file that lists what was rejected; empty if nothing was.
        given: whether the split is from a file, which may be another one that was published.

    Yields:
        A line for each count that differs.

    Example:
        >>> list(differences("flickr8k", {"train": 5_999, "val": 1_000, "test": 1_000}, 5_999))
        ['train has 5,999 of the 6,000 published images: 1 is missing']
    """
    published = PUBLISHED.get(name)
    if published is None or (given and published.other and _is_whole(published.other, images)):
        return
    whose = " of the authors' split" if given else ""
    counts = [(split, "images", images[split], n) for split, n in published.images.items()]
    if published.training_people is not None:
        counts.append(("train", "people", training_instances, published.training_people))
    for split, what, found, expected in counts:
        missing = expected - found
        if missing > 0:
            verb, see = "is" if missing == 1 else "are", f", see {rejected}" if rejected else ""
            share = f"{found:,} of the {expected:,} published {what}{whose}"
            yield f"{split} has {share}: {missing:,} {verb} missing{see}"
        elif missing < 0:
            more = f"{-missing:,} more than the {expected:,} published{whose}"
            yield f"{split} has {found:,} {what}, {more}"


def _is_whole(name: str, images: Mapping[str, int]) -> bool:
    return PUBLISHED[name].images == dict(images)
