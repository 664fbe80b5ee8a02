"""The published size of each data set, to find out whether prepared data is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tf_dpce.datasets.listing import SPLITS

# Images by split. Flickr30k and MSCOCO have no official split into three: theirs is the one in the
# authors' code, github.com/layumi/Image-Text-Embedding. After the slash stands the name in
# Karpathy's own file.
PUBLISHED: dict[str, dict[str, int]] = {
    name: dict(zip(SPLITS, images, strict=True))
    for name, images in {
        "flickr8k": (6_000, 1_000, 1_000),
        "flickr30k": (29_783, 1_000, 1_000),
        "mscoco": (113_287, 5_000, 5_000),
        "cuhk_pedes": (34_054, 3_078, 3_074),
        "karpathy/flickr8k": (6_000, 1_000, 1_000),
        "karpathy/flickr30k": (29_000, 1_014, 1_000),
        "karpathy/coco": (113_287, 5_000, 5_000),
    }.items()
}
# Persons in training, if an image is no instance of its own.
TRAINING_PEOPLE = {"cuhk_pedes": 11_003}
# SHA-256 of the lines `split<TAB>name` of the official lists, sorted, each with a line feed: the
# digest of the manifest if every image of the split is stored.
OFFICIAL_SPLITS = {"flickr8k": "b329218869ccfdb934c832316f7b55c3ec4313066bc05175766a3ebf105e27c8"}
# Another split of the same data set, which may be given in a file.
_OTHER = {"flickr30k": "karpathy/flickr30k"}


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
        ['train has 5,999 of the 6,000 published images']
    """
    published = PUBLISHED.get(name, {})
    if given and name in _OTHER and PUBLISHED[_OTHER[name]] == images:
        return
    whose = " of the authors' split" if given else ""
    counts = [(split, "images", images[split], n) for split, n in published.items()]
    if name in TRAINING_PEOPLE:
        counts.append(("train", "people", training_instances, TRAINING_PEOPLE[name]))
    for split, what, found, expected in counts:
        if found != expected:
            see = f", see {rejected}" if rejected and found < expected else ""
            yield f"{split} has {found:,} of the {expected:,} published {what}{whose}{see}"


def compared_split(name: str, digest: str) -> Iterator[str]:
    """Yields a line that says whether a split is the official one, if there is an official one.

    Args:
        name: key of `PUBLISHED`.
        digest: digest of the split, as in the manifest.
    """
    official = OFFICIAL_SPLITS.get(name.removeprefix("karpathy/"))
    if official:
        whether = "the official split" if digest == official else f"the official one is {official}"
        yield f"digest of the split {digest}: {whether}"
