"""Tar shards as WebDataset and img2dataset write them: images with a text or JSON beside each."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from itertools import groupby
from lzma import LZMAError
from typing import NamedTuple

from tf_dpce.datasets.captions_beside import TEXT_ENDINGS, captions_beside
from tf_dpce.datasets.extracted import ExtractedImages
from tf_dpce.datasets.listing import Image, Rejected, usable_images
from tf_dpce.datasets.names import IMAGE_ENDINGS, ImageNames
from tf_dpce.datasets.splits import complete_splits, known_split, read_split_file, split_in_name
from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger
from tf_dpce.remote_path import AnyPath, any_path, matching

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")

DAMAGED = "damaged: what follows in it is lost"
NO_IMAGE = "no image in this sample, or one that is a link or too large"

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
    root: AnyPath, extracted: ExtractedImages, split_file: AnyPath | None = None, seed: int = 0
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
    listed: list[Image] = []
    for shard in shards:
        for item in _samples(shard, extracted):
            if isinstance(item, Rejected):
                yield item
            else:
                item.split = by_name.get(shard)
                listed.append(item)
    names = ImageNames(extracted.folder if listed else shards[0].parent)
    splits = read_split_file(split_file, names) if split_file else None
    if splits is None:
        complete_splits(listed, seed)
    yield from usable_images(root, listed, names, splits, split_file)


def tar_files(root: AnyPath) -> list[AnyPath]:
    """Returns the shards that a path means: itself, those below a folder, or those of a pattern.

    Raises:
        UserError: there is none, or a file of a range is missing.
    """
    if root.is_dir():
        below = root.rglob("*")
        found = {root: sorted(path for path in below if path.name.endswith(TAR_ENDINGS))}
    else:
        places = map(any_path, _ranges(str(root)))
        found = {place: [place] if place.is_file() else matching(place) for place in places}
    for place, shards in found.items():
        if not shards:
            message = f"{place}: there is no tar file: fetch it, or check --root"
            raise UserError("shards.none", message, place)
    return [shard for shards in found.values() for shard in shards]


def _ranges(pattern: str) -> list[str]:
    """Returns what a pattern with `{000..012}` stands for."""
    start, *range_and_end = _RANGE.split(pattern, maxsplit=1)
    if not range_and_end:
        return [pattern]
    first, last, end = range_and_end
    numbers = range(int(first), int(last) + 1)
    return [f"{start}{number:0{len(first)}d}{end}" for number in numbers]


def _samples(shard: AnyPath, extracted: ExtractedImages) -> Iterator[Image | Rejected]:
    """Yields the images of a shard, which it extracts, and what cannot be used."""
    for sample, items in groupby(_files(shard), lambda item: getattr(item, "sample", None)):
        if sample is None:
            yield from items
            continue
        files = {item.ending: item.contents for item in items}
        ending = next((end for end in files if end in IMAGE_ENDINGS), None)
        captions, reason = captions_beside(files)
        if ending is None or reason:
            yield Rejected(f"{shard} {shorten(sample)}", reason or NO_IMAGE)
        else:
            path = extracted.add(sample + ending, files[ending])
            yield Image(path.name, path, captions)


def _files(shard: AnyPath) -> Iterator[_File | Rejected]:
    """Yields the images and texts of a shard, and a `Rejected` if it is damaged."""
    count = 0
    try:
        with shard.open("rb") as stream, tarfile.open(fileobj=stream) as tar:
            for member in tar:
                count += 1
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.lower().partition(".")
                usable = member.isfile() and member.size <= _MAX_BYTES
                if usable and f".{ending}" in (*IMAGE_ENDINGS, *TEXT_ENDINGS):
                    sample = f"{folder}/{name[: len(stem)]}".lstrip("/")
                    yield _File(sample, f".{ending}", tar.extractfile(member).read())
            # Python ends a shard quietly at a header that it cannot read: a whole one has an end.
            tar.fileobj.seek(tar.offset)
            whole = tar.fileobj.read(_BLOCK) == bytes(_BLOCK)
    except _DAMAGE:
        whole = False
    if not whole:
        logger.warning(f"{shard} is damaged after {count:,} files: fetch it again")
        yield Rejected(str(shard), DAMAGED)
