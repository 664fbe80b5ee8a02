"""Which files are meant by a folder of images, or by a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterator
from itertools import takewhile
from pathlib import Path

from tf_dpce.data.manifest import MANIFEST_FILE
from tf_dpce.datasets.names import is_image, is_users
from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger
from tf_dpce.search.embedding.records import manifest_facts
from tf_dpce.storage import WILDCARDS, Found, find_files


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

    `image_entries` says which. Folders and files that cannot be read are logged.
    """
    unreadable: list[str] = []
    found = sorted(entry.path for entry in image_entries(folder, unreadable))
    if unreadable:
        first = shorten(os.path.relpath(min(unreadable), folder))
        count = f"left out {len(unreadable):,} that cannot be read"
        logger.warning(f"{count} below {folder}, such as {first}")
    return found


def image_entries(folder: str, unreadable: list[str]) -> Iterator[os.DirEntry[str]]:
    """Yields all files below a folder whose names end as those of images do, in no order.

    Hidden files and folders and those of thumbnails are left out. A link to a folder elsewhere is
    followed; one to a folder above or below is not, because that is found anyway or has no end.
    The system is asked for each folder, and about nothing in it but links.

    Args:
        folder: where to begin.
        unreadable: the folders and files that cannot be read are added.
    """
    top = os.path.realpath(folder)
    pending, seen = [folder], {top}
    while pending:
        folders = []
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if not is_users(entry.name):
                        continue
                    if _is(entry, os.DirEntry.is_dir, os.path.isdir):
                        folders.append(entry)
                    elif is_image(entry.name):
                        if _is(entry, os.DirEntry.is_file, os.path.isfile):
                            yield entry
                        else:
                            unreadable.append(entry.path)
        except OSError as error:
            unreadable.append(error.filename)
        for entry in sorted(folders, key=lambda entry: entry.name):
            real = os.path.realpath(entry.path)
            if real not in seen and not (entry.is_symlink() and _nested(real, top)):
                seen.add(real)
                pending.append(entry.path)


def _is(
    entry: os.DirEntry[str], itself: Callable[..., bool], followed: Callable[[str], bool]
) -> bool:
    # Other than the entry's own methods, those of `os.path` pass over links that run in a circle.
    return itself(entry, follow_symlinks=False) or (entry.is_symlink() and followed(entry.path))


def _nested(one: str, other: str) -> bool:
    return os.path.commonpath([one, other]) in (one, other)


def remote_matches(pattern: str) -> tuple[list[Found], str]:
    """Returns the remote files that match, sorted, and the folder in which wildcards begin.

    Of a folder that `prepare` wrote they are its shards, of another all below it whose names end
    as those of images do.

    Raises:
        UserError: there are none, or the storage cannot be listed.
    """
    pattern = pattern.rstrip("/")
    found, root = find_files(pattern), pattern
    if any(sign in pattern for sign in WILDCARDS):
        parts = pattern.split("/")
        root = "/".join(takewhile(lambda part: not set(part) & set(WILDCARDS), parts))
    elif [file.url for file in found] == [pattern]:
        root = os.path.dirname(pattern)
    elif any(file.url == f"{pattern}/{MANIFEST_FILE}" for file in found):
        listed = {file.url: file for file in found}
        shards = [f"{pattern}/{name}" for name in manifest_facts(pattern)]
        if missing := [shard for shard in shards if shard not in listed]:
            message = f"{missing[0]} is missing: copy the prepared folder again"
            raise UserError("inputs.shard", message, missing[0])
        found = [listed[shard] for shard in shards]
    else:
        found = [file for file in found if _is_image_below(file.url.removeprefix(f"{pattern}/"))]
    if not found:
        message = f"{pattern} matches no object, and none below it is named like an image"
        raise UserError("inputs.no_match", f"{message}: check the bucket and the name", pattern)
    return found, root


def _is_image_below(name: str) -> bool:
    return is_image(name) and all(map(is_users, name.split("/")))
