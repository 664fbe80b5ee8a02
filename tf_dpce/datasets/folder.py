"""A folder of images with a text beside each, as img2dataset and many tools leave it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_dpce.datasets.captions_beside import NO_IMAGE, TEXT_ENDINGS, captions_beside
from tf_dpce.datasets.listing import Image, Rejected, usable_images
from tf_dpce.datasets.names import ImageNames, is_image, is_users
from tf_dpce.datasets.splits import complete_splits, known_split, read_split_file

_NOT_UTF8 = "a name that is not UTF-8"


def read_folder(
    root: Path, split_file: Path | None = None, seed: int = 0
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
    for folder, below, files in os.walk(names.folder):
        below[:] = sorted(filter(is_users, below))
        for item in _images_of(Path(folder), sorted(files), names):
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


def _images_of(folder: Path, files: Sequence[str], names: ImageNames) -> Iterator[Image | Rejected]:
    """Yields the images of one folder with the captions beside them."""
    texts_here = {stem + end.lower(): stem + end for stem, end in map(os.path.splitext, files)}
    used: set[str] = set()
    for file in files:
        stem = os.path.splitext(file)[0]
        if not (is_users(file) and is_image(file)):
            continue
        path = folder / file
        if not file.isprintable() and "\udc80" <= max(file) <= "\udcff":
            yield Rejected(str(path), _NOT_UTF8)
            continue
        texts = {end: texts_here[stem + end] for end in TEXT_ENDINGS if stem + end in texts_here}
        used.update(texts.values())
        try:
            contents = {end: (folder / text).read_bytes() for end, text in texts.items()}
        except OSError as error:
            yield Rejected(str(path), f"the text beside it cannot be read: {error.strerror}")
            continue
        captions, reason = captions_beside(contents)
        if reason:
            yield Rejected(str(path), reason)
        else:
            found = names.find(str(path))
            yield Image(found.image_id, found.path, captions)
    for file in files:
        if file not in used and file.lower().endswith(".txt"):
            yield Rejected(str(folder / file), NO_IMAGE)
