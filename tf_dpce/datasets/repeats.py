"""Images and captions that occur more than once in a data set."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Collection, Hashable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain

from tf_dpce.datasets.listing import Image
from tf_dpce.logging import tracked
from tf_dpce.remote_path import AnyPath, read_part

# Images whose files have the same keys so far: one key in the other.
Alike = dict[Hashable, list[Image]]

_THREADS = 8  # more than cores, because they wait for the disk
_FILES = 64  # that a thread asks about at a time
_SAMPLE_BYTES = 4096
_PART_BYTES = 2**24  # most images are smaller


@dataclass(frozen=True)
class Repeats:
    """What occurs more than once.

    Attributes:
        copies: number of images whose file holds the same bytes as that of one before.
        across_splits: number of contents that lie in several splits.
        captions: number of captions that belong to several instances.
        captioned: number of images that have such a caption.
    """

    copies: int = 0
    across_splits: int = 0
    captions: int = 0
    captioned: int = 0


def join_copies(images: Collection[Image]) -> None:
    """Makes one instance of the images of a split whose files hold the same bytes.

    Call it before a split is drawn by instance: copies then stay together, and one that has a split
    takes the others along. An instance that the data set names stays as it is.
    """
    mark_copies(images)
    splits = {image.content: image.split for image in images if image.content and image.split}
    first: dict[tuple[str | None, str | None], str] = {}
    for image in images:
        if image.content and image.instance == image.image_id:
            image.split = image.split or splits.get(image.content)
            image.instance = first.setdefault((image.content, image.split), image.instance)


def keep_together(images: Iterable[Image], splits: MutableMapping[str, str]) -> None:
    """Puts copies into the split that was drawn for the first of them.

    Args:
        images: the images.
        splits: the split of each image by its name, which changes.
    """
    images = [image for image in images if image.image_id in splits]
    mark_copies(images)
    first: dict[str | None, str] = {}
    for image in images:
        if image.content:
            splits[image.image_id] = first.setdefault(image.content, splits[image.image_id])


def mark_copies(images: Collection[Image]) -> None:
    """Finds files that hold the same bytes, and names their content in `Image.content`.

    Only files of equal length are opened, and only those whose middle is the same are read whole. A
    file that cannot be read is no copy.
    """
    if all(image.content is not None for image in images):
        return
    alike: Alike = {"": list(images)}
    for content_key in (_length, _middle, _digest):
        alike = _divided(alike, content_key)
    for image in images:
        image.content = ""
    for (_, digest), copies in alike.items():
        for image in copies:
            image.content = digest


def count_repeats(images: Collection[Image]) -> Repeats:
    """Counts what occurs more than once among images whose copies are marked."""
    splits: dict[str, list[str | None]] = {}
    owners: dict[str, str] = {}
    shared: set[str] = set()
    for image in images:
        if image.content:
            splits.setdefault(image.content, []).append(image.split)
        for caption in image.captions:
            if owners.setdefault(caption, image.instance) != image.instance:
                shared.add(caption)
    return Repeats(
        copies=sum(len(found) - 1 for found in splits.values()),
        across_splits=sum(len(set(found)) > 1 for found in splits.values()),
        captions=len(shared),
        captioned=sum(not shared.isdisjoint(image.captions) for image in images),
    )


def _divided(groups: Alike, content_key: Callable[[AnyPath], Hashable]) -> Alike:
    """Divides groups by one more key of their files, and drops what is alone then."""
    divided: Alike = {}
    pairs = [(group, image) for group, images in groups.items() for image in images]
    key_of = partial(_key_of, content_key)
    parts = (pairs[start : start + _FILES] for start in range(0, len(pairs), _FILES))
    with ThreadPoolExecutor(_THREADS) as pool:
        keys = pool.map(lambda part: [key_of(image.path) for _, image in part], parts)
        keyed = zip(pairs, chain.from_iterable(keys), strict=True)
        for (group, image), key in tracked(keyed, "files compared", total=len(pairs)):
            if key is not None:
                divided.setdefault((group, key), []).append(image)
    return {key: images for key, images in divided.items() if len(images) > 1}


def _key_of(content_key: Callable[[AnyPath], Hashable], path: AnyPath) -> Hashable | None:
    try:
        return content_key(path)
    except (OSError, ValueError):
        # It is rejected, with its reason, when it is read.
        return None


def _length(path: AnyPath) -> int | None:
    found = path.stat()
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _middle(path: AnyPath) -> bytes:
    start = max(0, path.stat().st_size - _SAMPLE_BYTES) // 2
    return hashlib.sha256(read_part(str(path), start, _SAMPLE_BYTES)).digest()


def _digest(path: AnyPath) -> str:
    digest = hashlib.sha256()
    for start in range(0, path.stat().st_size, _PART_BYTES):
        digest.update(read_part(str(path), start, _PART_BYTES))
    return digest.hexdigest()
