"""Which files are meant by a folder of images, or by a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from tf_dpce.datasets.names import is_image, is_users
from tf_dpce.errors import shorten
from tf_dpce.logging import logger


def matching_files(pattern: str) -> tuple[list[str], str]:
    """Returns the files that match a pattern, sorted, and the folder in which its wildcards begin.

    What exists under its literal name is no pattern, such as the folder of `trip [2024]/*.jpg`.
    """
    if os.path.isfile(pattern):
        return [pattern], os.path.dirname(pattern)
    root, rest = "", list(Path(pattern).parts)
    while rest and os.path.lexists(os.path.join(root, rest[0])):
        root = os.path.join(root, rest.pop(0))
    found = glob.glob(os.path.join(glob.escape(root), *rest), recursive=True) if rest else []
    return sorted(filter(os.path.isfile, found)), root


def other_endings(pattern: str, taken: Collection[str]) -> list[str]:
    """Returns the images that would match a pattern if they had its ending, and are not taken.

    Args:
        pattern: a pattern such as `*.jpg`, which matches neither `a.JPG` nor `a.jpeg`.
        taken: absolute paths of files.
    """
    stem, ending = os.path.splitext(pattern)
    if not ending or os.path.exists(pattern):
        return []
    files, _ = matching_files(f"{stem}.*")
    return [file for file in files if is_image(file) and os.path.abspath(file) not in taken]


def images_below(folder: str) -> list[str]:
    """Returns all files below a folder whose names end as those of images do, sorted.

    Hidden files and folders and those of thumbnails are left out. A link to a folder elsewhere is
    followed; one to a folder above or below is not, because that is found anyway or has no end.
    Folders and files that cannot be read are logged.
    """
    found, unreadable = [], []
    top = os.path.realpath(folder)
    pending, seen = [folder], {top}
    while pending:
        try:
            for entry in _entries(pending.pop()):
                if entry.is_dir(follow_symlinks=False) or os.path.isdir(entry.path):
                    real = os.path.realpath(entry.path)
                    if real not in seen and not (entry.is_symlink() and _nested(real, top)):
                        seen.add(real)
                        pending.append(entry.path)
                elif is_image(entry.name):
                    (found if os.path.isfile(entry.path) else unreadable).append(entry.path)
        except OSError as error:
            unreadable.append(error.filename)
    if unreadable:
        first = shorten(os.path.relpath(min(unreadable), folder))
        count = f"left out {len(unreadable):,} that cannot be read"
        logger.warning(f"{count} below {folder}, such as {first}")
    return sorted(found)


def _entries(folder: str) -> Iterator[os.DirEntry]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_users(entry.name):
                yield entry


def _nested(one: str, other: str) -> bool:
    return os.path.commonpath([one, other]) in (one, other)
