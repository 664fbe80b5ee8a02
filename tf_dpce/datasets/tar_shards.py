"""Tar shards as WebDataset and img2dataset write them: images with a text or JSON beside each."""

from __future__ import annotations

import glob
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from itertools import groupby
from lzma import LZMAError
from pathlib import Path
from typing import NamedTuple

from tf_dpce.datasets.captions_beside import TEXT_ENDINGS, captions_beside
from tf_dpce.datasets.extracted import ExtractedImages
from tf_dpce.datasets.listing import Image, Rejected, check_same, usable_images
from tf_dpce.datasets.names import IMAGE_ENDINGS, ImageNames
from tf_dpce.datasets.splits import complete_splits, known_split, read_split_file, split_in_name
from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")

DAMAGED = "damaged: what follows in it is lost"
NO_FILE = "a link or a device"
NO_IMAGE = "no image in this sample"
TOO_LARGE = "more bytes than an image or a text may have"

_BLOCK = 512  # bytes
_MAX_BYTES = 64 * 2**20  # of a file in a shard
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, LZMAError, ValueError)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class _File(NamedTuple):
    """A file in a shard: name of its sample, its ending in lower case, and its contents."""

    sample: str
    ending: str
    contents: bytes


def read_tar_shards(
    root: Path, extracted: ExtractedImages, split_file: Path | None = None, seed: int = 0
) -> Iterator[Image | Rejected]:
    """Reads tar shards, and writes their images into files.

    Files that lie one after the other and have the same path up to the first dot of their names
    are a sample: an image, and its captions in `.txt` or `.json`. If all shards are named after
    splits, as in `train-000.tar` or `train/000.tar`, their images have these splits;
    `complete_splits` draws what is missing. Names in a shard lead nowhere: an image goes into the
    folder of `extracted` under the last part of its name.

    Args:
        root: a tar file, a folder of them, or a pattern such as `{00000..00012}.tar` or `*.tar`.
        extracted: the folder for the images.
        split_file: lines of `image<TAB>split`, in place of any other split.
        seed: seed of the drawn splits.

    Yields:
        The images, and a `Rejected` for each sample that cannot be used, and for each damaged
        shard, whose samples count up to the damage.

    Raises:
        UserError: there is no shard, the disk is too full, or no image can be used.
    """
    shards = tar_files(root)
    extracted.reserve(sum(shard.stat().st_size for shard in shards))
    own = {path: split_in_name(path.name) or known_split(path.parent.name) for path in shards}
    by_name = own if all(own.values()) else {}
    listed: dict[str, Image] = {}
    for shard in shards:
        for item in _samples(shard, extracted):
            if isinstance(item, Rejected):
                yield item
                continue
            item.split = by_name.get(shard)
            known = listed.setdefault(item.image_id, item)
            check_same(known, item)
            known.captions = list(dict.fromkeys([*known.captions, *item.captions]))
    names = ImageNames(extracted.folder if listed else shards[0].parent)
    splits = read_split_file(split_file, names) if split_file else None
    if splits is None:
        complete_splits(listed.values(), seed)
    yield from usable_images(root, listed.values(), names, splits, split_file)


def tar_files(root: Path) -> list[Path]:
    """Returns the shards that a path means: itself, those below a folder, or those of a pattern.

    Raises:
        UserError: there is none, or a file of a range is missing.
    """
    if root.is_dir():
        found = sorted(path for path in root.rglob("*") if path.name.endswith(TAR_ENDINGS))
    elif root.exists():
        found = [root]
    else:
        found = [Path(name) for part in _ranges(str(root)) for name in _matches(part)]
    if not found:
        message = f"{root} is no tar file, nor a folder or pattern of them: check --root"
        raise UserError("shards.none", message, root)
    return found


def _ranges(pattern: str) -> list[str]:
    """Returns what a pattern with `{000..012}` stands for."""
    match = _RANGE.search(pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [pattern[: match.start()] + number + pattern[match.end() :] for number in numbers]


def _matches(pattern: str) -> list[str]:
    found = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not found:
        message = f"{pattern}: there is no such shard: fetch it, or give another pattern"
        raise UserError("shards.none", message, pattern)
    return found


def _samples(shard: Path, extracted: ExtractedImages) -> Iterator[Image | Rejected]:
    """Yields the images of a shard, which it extracts, and what cannot be used."""
    for kind, items in groupby(_files(shard), lambda item: getattr(item, "sample", None)):
        if kind is None:
            yield from items
            continue
        files = {item.ending: item for item in items}
        place = f"{shard} {shorten(kind)}"
        image = next((item for end, item in files.items() if end in IMAGE_ENDINGS), None)
        texts = {end: files[end].contents for end in TEXT_ENDINGS if end in files}
        captions, reason = captions_beside(texts)
        if image is None:
            reason = reason or NO_IMAGE
        if reason:
            yield Rejected(place, reason)
        else:
            path = extracted.add(image.sample + image.ending, image.contents)
            yield Image(path.name, path, captions)


def _files(shard: Path) -> Iterator[_File | Rejected]:
    """Yields the images and texts of a shard, and what is neither a file nor a folder."""
    count = 0
    try:
        with tarfile.open(shard, "r:*") as tar:
            for member in tar:
                count += 1
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                ending = f".{ending.lower()}"
                if not member.isfile() and not member.isdir():
                    yield Rejected(f"{shard} {shorten(member.name)}", NO_FILE)
                elif member.isdir() or ending not in (*IMAGE_ENDINGS, *TEXT_ENDINGS):
                    continue
                elif member.size > _MAX_BYTES:
                    yield Rejected(f"{shard} {shorten(member.name)}", TOO_LARGE)
                else:
                    contents = tar.extractfile(member).read()
                    yield _File(f"{folder}/{stem}".lstrip("/"), ending, contents)
            # Python ends a shard quietly at a header that it cannot read: a whole one has an end.
            tar.fileobj.seek(tar.offset)
            whole = tar.fileobj.read(_BLOCK) == bytes(_BLOCK)
    except _DAMAGE:
        whole = False
    if not whole:
        logger.warning(f"{shard} is damaged after {count:,} files: fetch it again")
        yield Rejected(str(shard), DAMAGED)
