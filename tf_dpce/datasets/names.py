"""Finds the files that the names in annotations stand for, if they only nearly match.

Tables are written on other machines than the one that reads them: with Windows paths, with
addresses, in another case or Unicode form. A name counts as found if one file alone fits it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import cache, cached_property
from heapq import nlargest
from typing import NamedTuple

from tf_dpce.datasets.listing import ADDRESS
from tf_dpce.datasets.spellings import spellings
from tf_dpce.datasets.splits import image_name
from tf_dpce.datasets.text_files import existing_folder
from tf_dpce.logging import logger
from tf_dpce.remote_path import AnyPath, scan
from tf_dpce.storage import is_remote, rooted

AMBIGUOUS = "several names fit this one file"

# How a name differs from that of the file, in the words of the log.
_LONGER = "with other folders before it"
_CASE = "in another case or Unicode form"
_NO_ENDING = "without its ending"

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif"),
)
# Folders of thumbnails and of deleted files, which file servers, macOS and Windows make.
_NOT_THE_USERS = ("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX")
# A single letter before the colon is a Windows drive.
_ADDRESS = re.compile(r"data:|(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_COMPARED = 1000  # names that are compared letter by letter


class ImageFile(NamedTuple):
    """The file that a name stands for.

    Attributes:
        image_id: its path below the folder of images, the same for all names of the file.
        path: its absolute path.
    """

    image_id: str
    path: AnyPath


def is_image(name: str) -> bool:
    """Returns whether a file's name ends as that of an image."""
    return name.lower().endswith(IMAGE_ENDINGS)


def is_users(name: str) -> bool:
    """Returns whether a file or folder is the user's own, neither hidden nor one of thumbnails."""
    return not name.startswith(".") and name not in _NOT_THE_USERS


class ImageNames:
    """The names of the images in a folder, which is listed once, as far as names ask for it.

    Args:
        folder: the folder that the images' paths start from.

    Raises:
        UserError: it is no folder.

    Example:
        >>> names = ImageNames(Path("images"))
        >>> [names.find(name).image_id for name in ("7.jpg", "7.JPG", r"images\\7")]
        ['7.jpg', '7.jpg', '7.jpg']
    """

    def __init__(self, folder: AnyPath) -> None:
        self.folder = existing_folder(folder)
        # As in the storage's own tree, in which names are joined, and compared as text.
        self._root, self._remote = rooted(str(self.folder)), is_remote(str(self.folder))
        self._listings: dict[str, _Listing] = {}
        self._found: dict[str, tuple[ImageFile, tuple[str, ...]]] = {}
        self._real_folder = cache(os.path.realpath)
        self._outside: dict[str, str] = {}
        self._dropped: dict[str, str] = {}
        self._ambiguous: set[str] = set()

    def find(self, name: str, below: str = "") -> ImageFile:
        """Returns the file that a name stands for; it starts from the folder `below`, if any.

        If there is none, or if several fit, the path is that of the name as it is written. An
        address of which no file has the last part stays the id as it is.
        """
        if below not in ("", ".") and not _ADDRESS.match(name):
            name = os.path.join(below, name)
        # A table has a row for each caption.
        if name not in self._found:
            exact = self._exact(name)
            self._found[name] = (exact, ()) if exact else self._nearly(name)
        return self._found[name][0]

    def fault(self, image_id: str) -> str:
        """Returns why an image that was found cannot be used, or an empty text."""
        if image_id in self._ambiguous:
            return AMBIGUOUS
        return ADDRESS if _ADDRESS.match(image_id) else ""

    def log_found(self) -> None:
        """Logs in one line how many names were found that do not match exactly."""
        counts = Counter(kind for _, kinds in self._found.values() for kind in kinds)
        if counts:
            each = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
            logger.info(
                f"names of images that were found though they are written otherwise: {each}"
            )

    def _exact(self, name: str) -> ImageFile | None:
        folder, base = os.path.split(os.path.normpath(os.path.join(self._root, name)))
        listing = self._listing(folder)
        return self._file(listing, base, name) if base in listing.files else None

    def _nearly(self, name: str) -> tuple[ImageFile, tuple[str, ...]]:
        for path, changes in spellings(name):
            for shorter, prefix in self._shortened(path):
                walked = self._walk(shorter)
                if walked is None:
                    continue
                listing, base, kinds = walked
                file = self._file(listing, base, shorter)
                if prefix and self._dropped.setdefault(file.image_id, prefix) != prefix:
                    self._ambiguous.add(file.image_id)
                longer = [_LONGER] if shorter != path else []
                return file, (*changes, *kinds, *longer)
        image_id = name.strip() if _ADDRESS.match(name.strip()) else image_name(name)
        return ImageFile(image_id, self.folder / image_id), ()

    def _shortened(self, path: str) -> Iterator[tuple[str, str]]:
        """Yields a path and then its ends, each with the folders of another machine before it.

        A relative path loses only folders with which the folder of images itself ends.
        """
        address = _ADDRESS.match(path)
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not address:
            yield path, ""
        for count in range(max(1, len(parts) - 1) if address else 1, len(parts)):
            start, end = parts[:count], "/".join(parts[count:])
            if address or os.path.isabs(path):
                yield end, "/".join(start).casefold()
            elif self.folder.parts[-count:] == (*start,):
                yield end, ""

    def _walk(self, path: str) -> tuple[_Listing, str, tuple[str, ...]] | None:
        """Follows a path from folder to folder, by the one name in each that fits."""
        path = os.path.normpath(os.path.join(self._root, path))
        below = self._below(path)
        listing = self._listing(self._root if below else "/")
        *folders, base = (below or path.lstrip("/")).split("/")
        kinds: tuple[str, ...] = ()
        for part in folders:
            name, kind = listing.match(part, listing.folders)
            if not name:
                return None
            listing, kinds = self._listing(os.path.join(listing.path, name)), (*kinds, *kind)
        name, kind = listing.match(base, listing.files)
        return (listing, name, (*kinds, *kind)) if name else None

    def _file(self, listing: _Listing, base: str, name: str) -> ImageFile:
        """Returns one id for all names of a file: its real path, if that is below the folder."""
        path, real = os.path.join(listing.path, base), os.path.join(listing.real, base)
        if base in listing.links:
            real = self._followed(real)
        image_id = self._below(real)
        if not image_id:
            own = self._below(path) or (path if os.path.isabs(name) else "")
            own = own or os.path.relpath(path, self._root)
            image_id = self._outside.setdefault(real, own)
        return ImageFile(image_id, self.folder / image_id)

    def _followed(self, link: str) -> str:
        """Returns the real path of a link; the folder that many lead into is asked about once."""
        with suppress(OSError):  # It is no link any more.
            folder, base = os.path.split(os.path.join(os.path.dirname(link), os.readlink(link)))
            near = os.path.join(self._real_folder(folder), base)
            if base and not os.path.islink(near):
                return near
        return os.path.realpath(link)

    def _below(self, path: str) -> str:
        prefix = os.path.join(self._root, "")
        return path.removeprefix(prefix) if path.startswith(prefix) else ""

    def _listing(self, folder: str) -> _Listing:
        if folder not in self._listings:
            # Elsewhere in a store may be anybody's, and is not asked for.
            ours = not self._remote or f"{folder}/".startswith(f"{self._root}/")
            self._listings[folder] = _Listing(self.folder.joinpath(folder) if ours else None)
        return self._listings[folder]

    def walk(self) -> Iterator[tuple[AnyPath, list[str]]]:
        """Yields each folder, without those that are not the user's, and the files in it, sorted.

        Links to folders are not followed.
        """
        pending = [self._root]
        while pending:
            listing = self._listing(pending.pop())
            yield self.folder.joinpath(listing.path), sorted(listing.files)
            below = filter(is_users, sorted(listing.folders - listing.links, reverse=True))
            pending += (os.path.join(listing.path, name) for name in below)


class _Listing:
    """What a folder holds; nothing if it is None or missing, or cannot be listed."""

    def __init__(self, folder: AnyPath | None) -> None:
        self.path = self.real = rooted(str(folder)) if folder else ""
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.links: set[str] = set()
        if folder is None:
            return
        # A null character in a path is a ValueError.
        with suppress(OSError, ValueError):
            for entry in scan(folder):
                (self.folders if entry.is_dir() else self.files).add(entry.name)
                if entry.is_symlink():
                    self.links.add(entry.name)
            self.real = rooted(str(folder.resolve()))

    def match(self, name: str, names: Collection[str]) -> tuple[str, tuple[str, ...]]:
        """Returns the one of `names` here that fits, and how it differs; an empty text if none."""
        if name in names:
            return name, ()
        for alike, kind in ((self._by_case, _CASE), (self._by_stem, _NO_ENDING)):
            found = [name for name in alike.get(_alike(name), ()) if name in names]
            if found:
                # Of several none is the right one.
                return (found[0], (kind,)) if len(found) == 1 else ("", ())
        return "", ()

    @cached_property
    def _by_case(self) -> dict[str, list[str]]:
        return _grouped((_alike(name), name) for name in (*self.files, *self.folders))

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        parts = ((*os.path.splitext(name), name) for name in self.files)
        return _grouped((_alike(s), name) for s, end, name in parts if end.lower() in IMAGE_ENDINGS)


def nearest_name(path: AnyPath) -> str:
    """Returns the existing path that is most like one that does not exist, or an empty text.

    The missing part is compared with its would-be neighbours; of very many, with those that begin
    alike.
    """
    folder = next(parent for parent in path.parents if parent.is_dir())
    missing = path.relative_to(folder).parts[0]
    listing = _Listing(folder)
    names = sorted(name for name in listing.files | listing.folders if name.isprintable())
    if len(names) > _COMPARED:
        names = nlargest(_COMPARED, names, lambda name: len(os.path.commonprefix([name, missing])))
    close = get_close_matches(missing, names, n=1)
    return str(folder / close[0]) if close else ""


def _alike(name: str) -> str:
    """Returns the same text for names that differ in case or Unicode form alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _grouped(pairs: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key, name in pairs:
        groups[key].append(name)
    return groups
