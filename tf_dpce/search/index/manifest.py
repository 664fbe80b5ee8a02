"""The content of `index.json`: the files of an index that are in force."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.files import OTHER_TYPE, from_json, is_temporary, write_json
from tf_dpce.search.embedding.store import KINDS

MANIFEST = "index.json"

# The former was one FAISS index a kind, in a folder of its own, with records in Arrow's format.
_FORMAT = 2
_CHECKED = 1 << 16  # bytes
_COARSE = 2 * 10**9  # nanoseconds, the precision of the coarsest file systems
_REBUILD = "build the index again"
# A random number in each name: the name of a file that was removed never returns.
_NAMES = rf"({'|'.join(KINDS)}|calibration)-[0-9a-f]{{12}}"
_FILE = re.compile(rf"{_NAMES}\.(faiss|near\.faiss|parquet|npy|npz)")
# What a folder of format 1 holds; its name is a number, and so are those of many an archive.
_FORMER = re.compile(rf"({'|'.join(KINDS)})\.(faiss|arrow)")


@dataclass(frozen=True)
class StoredFile:
    """A file of an index.

    Attributes:
        name: its name in the folder of the index.
        size: its bytes. A file that was cut is recognised by it: a map of one could end the
            process when it is read.
        checksum: CRC-32 of its first and last 64 KiB, where it says what it holds: FAISS asks for
            as much memory as a damaged number says.
    """

    name: str
    size: int
    checksum: int

    @classmethod
    def of(cls, path: Path) -> StoredFile:
        """Returns the entry of a file.

        Raises:
            OSError: it cannot be read.
        """
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            checksum = 0
            for place in (0, max(size - _CHECKED, 0)):
                stream.seek(place)
                checksum = zlib.crc32(stream.read(_CHECKED), checksum)
        return cls(path.name, size, checksum)


@dataclass(frozen=True)
class SegmentEntry:
    """Items of one kind that were written together; only which of them are deleted changes.

    Attributes:
        rows: number of items, with the deleted ones.
        alive: number of items that are not deleted.
        flat: the embeddings, a FAISS index that compares a query with each of them.
        records: the columns of each item, in Parquet.
        approximate: a FAISS index that is faster and not exact, if there is one.
        deleted: a bit for each row, if some are deleted.
    """

    rows: int
    alive: int
    flat: StoredFile
    records: StoredFile
    approximate: StoredFile | None = None
    deleted: StoredFile | None = None

    @property
    def files(self) -> list[StoredFile]:
        """All files of the segment."""
        return [file for file in (self.flat, self.records, self.approximate, self.deleted) if file]


@dataclass(frozen=True)
class KindEntry:
    """The items of one kind.

    Attributes:
        segments: where they are.
        querybank: the queries that they are normalised with, float32 `[Q, D]`. Embeddings have one
            more number then, less half of the item's hubness, which is multiplied by 1 for a query
            of the other kind and by 0 for one of the same kind.
        queries: Q; 0 without a querybank.
        effort: number of lists of an inverted file that a query searches, or `efSearch` of HNSW;
            None for the usual.
    """

    segments: tuple[SegmentEntry, ...] = ()
    querybank: StoredFile | None = None
    queries: int = 0
    effort: int | None = None

    @property
    def alive(self) -> int:
        """Number of items."""
        return sum(segment.alive for segment in self.segments)


@dataclass(frozen=True)
class IndexManifest:
    """The content of `index.json`.

    Attributes:
        model: digest of the model of the embeddings.
        dimension: D.
        factory: FAISS's description of the index; None for the default of its size.
        kinds: the items by kind.
        calibration: the calibration of the model, if the embeddings had one beside them.
        whole: how many numbers the model's embeddings have, if these are only the first D of them.
    """

    model: str
    dimension: int
    factory: str | None = None
    kinds: dict[str, KindEntry] = field(default_factory=dict)
    calibration: StoredFile | None = None
    whole: int | None = None

    @classmethod
    def parse(cls, content: bytes, path: Path) -> IndexManifest:
        """Reads the bytes of the file `path`.

        Raises:
            UserError: they are damaged, or of a version of this library that wrote other indices.
        """
        try:
            value = json.loads(content)
            # The former format has a version instead.
            if "version" in value or value.pop("format") != _FORMAT:
                message = f"{path.parent} is an index of another version: {_REBUILD}"
                raise UserError("index.format", message, path)
            return from_json(cls, value)
        except OTHER_TYPE:
            message = f"{path} is damaged: {_REBUILD}"
            raise UserError("index.damaged", message, path) from None

    def entry(self, kind: str) -> KindEntry:
        """Returns the items of a kind, of which there may be none."""
        return self.kinds.get(kind, KindEntry())

    def save(self, folder: Path) -> None:
        """Puts this manifest in force, by one rename."""
        write_json(folder / MANIFEST, {"format": _FORMAT, **asdict(self)})

    @property
    def files(self) -> set[str]:
        """Names of all files of the index, but for `index.json`."""
        kinds = self.kinds.values()
        files = [file for kind in kinds for segment in kind.segments for file in segment.files]
        files += [kind.querybank for kind in kinds if kind.querybank]
        files += [self.calibration] if self.calibration else []
        return {file.name for file in files}


def manifest_bytes(folder: Path) -> bytes:
    """Returns the bytes of `index.json`.

    Raises:
        UserError: there is no index.
    """
    try:
        return (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        message = f"{folder} is not an index: build one with the verb index"
        raise UserError("index.missing", message, folder) from None


@dataclass(frozen=True)
class Reading:
    """What `index.json` said when it was read.

    Attributes:
        stamp: see `manifest_stamp`; None if it says nothing.
        version: a digest of it.
        manifest: its content.
    """

    stamp: tuple[int, ...] | None
    version: str
    manifest: IndexManifest

    @classmethod
    def of(cls, folder: Path, stamp: tuple[int, ...] | None) -> Reading:
        """Reads the manifest of an index.

        Args:
            folder: folder of the index.
            stamp: that of the file, taken before. It is forgotten if the file is so new that a
                second replacement might look the same: clocks of file systems are coarse.

        Raises:
            UserError: there is no index, or it is damaged.
        """
        if stamp and time.time_ns() - stamp[2] < _COARSE:
            stamp = None
        content = manifest_bytes(folder)
        manifest = IndexManifest.parse(content, folder / MANIFEST)
        return cls(stamp, hashlib.sha256(content).hexdigest(), manifest)


def manifest_stamp(path: str) -> tuple[int, ...] | None:
    """Returns what differs after each replacement of the file `index.json`; None if it is missing.

    Every query calls it, so that it does nothing else.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_index_file(path: Path) -> bool:
    """Whether a path is that of a file or folder which only an index has."""
    if path.is_dir():
        held = (item.name for item in path.iterdir())
        return path.name.isdecimal() and all(map(_FORMER.fullmatch, held))
    return _FILE.fullmatch(path.name) is not None


def refuse_foreign(out: Path) -> None:
    """Makes sure that a new index replaces nothing but an index.

    Raises:
        UserError: `out` is a file, or holds other files.
    """
    if out.exists() and not out.is_dir():
        raise UserError("index.target", f"{out} is a file: give the folder of an index", out)
    own = (
        item.name == MANIFEST or is_temporary(item.name) or is_index_file(item)
        for item in (out.iterdir() if out.is_dir() else ())
    )
    if not all(own):
        message = f"{out} holds other files than an index: give another --out"
        raise UserError("index.target", message, out)
