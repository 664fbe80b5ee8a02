"""A folder of images with a text beside each, as img2dataset and many tools leave it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from tf_dpce.datasets.captions_beside import NO_IMAGE, TEXT_ENDINGS, captions_beside
from tf_dpce.datasets.listing import Image, Rejected, usable_images
from tf_dpce.datasets.names import ImageNames, is_image, is_users
from tf_dpce.datasets.splits import complete_splits, known_split, read_split_file
from tf_dpce.remote_path import AnyPath, read_each
from tf_dpce.storage import rooted

_NOT_UTF8 = "a name that is not UTF-8"


def read_folder(
    root: AnyPath, split_file: AnyPath | None = None, seed: int = 0
) -> Iterator[Image | Rejected]:
    """Reads every image below a folder, with the captions of `a.txt` or `a.json` beside `a.jpg`.

    If all images lie in folders that are named after splits, such as `train` and `validation`,
    they have these splits; `complete_splits` draws what is missing.

    Args:
        root: the folder.
        split_file: lines of `image<TAB>split`, in place of any other split.
        seed: seed of the drawn splits.

    Yields:
        The images, and a `Rejected` for each image or text that cannot be used.

    Raises:
        UserError: the folder is missing, the split file is malformed, or no image can be used.
    """
    names = ImageNames(root)
    splits = read_split_file(split_file, names) if split_file else None
    listed: dict[str, Image] = {}
    for folder, files in names.walk():
        for item in _images_of(folder, files, names):
            if isinstance(item, Rejected):
                yield item
            else:
                listed.setdefault(item.image_id, item)
    own = {name: known_split(name.partition("/")[0]) for name in listed}
    if all(own.values()):
        for name, image in listed.items():
            image.split = own[name]
    if splits is None:
        complete_splits(listed.values(), seed)
    yield from usable_images(root, listed.values(), names, splits, split_file)


def _images_of(
    folder: AnyPath, files: Sequence[str], names: ImageNames
) -> Iterator[Image | Rejected]:
    """Yields the images of one folder with the captions beside them."""
    texts_here = {stem + end.lower(): stem + end for stem, end in map(os.path.splitext, files)}
    beside: dict[str, dict[str, str]] = {}
    for file in files:
        stem = os.path.splitext(file)[0]
        if not (is_users(file) and is_image(file)):
            continue
        if not file.isprintable() and "\udc80" <= max(file) <= "\udcff":
            yield Rejected(str(folder / file), _NOT_UTF8)
            continue
        ends = (end for end in TEXT_ENDINGS if stem + end in texts_here)
        beside[file] = {end: texts_here[stem + end] for end in ends}
    used = [text for texts in beside.values() for text in texts.values()]
    read = read_each([folder / text for text in used])
    for file, texts in beside.items():
        path = folder / file
        contents = {end: next(read) for end in texts}
        unread = [found for found in contents.values() if isinstance(found, OSError)]
        if unread:
            reason = f"the text beside it cannot be read: {unread[0].strerror}"
            yield Rejected(str(path), reason)
            continue
        captions, reason = captions_beside(contents)
        if reason:
            yield Rejected(str(path), reason)
        else:
            found = names.find(rooted(str(path)))
            yield Image(found.image_id, found.path, captions)
    for file in sorted(set(files).difference(used)):
        if file.lower().endswith(".txt"):
            yield Rejected(str(folder / file), NO_IMAGE)
