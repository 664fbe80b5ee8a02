"""The manifest: what a prepared folder holds. It is written last, so it makes the folder whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tf_dpce.datasets.pair import SPLITS
from tf_dpce.errors import UserError
from tf_dpce.files import read_json, write_json

FORMAT = 1
MANIFEST_FILE = "manifest.json"
VOCABULARY_FILE = "vocabulary.txt"
REJECTED_FILE = "rejected.jsonl"

# The shards that prepare may delete or replace, for as long as no manifest lists them.
UNFINISHED_FILE = ".unfinished.json"

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-[^/]*\.tfrecord")
_ASIDE = re.compile(r"\..*\.tmp")

# Keras casts labels to float32, in which larger whole numbers collide.
MAX_INSTANCES = 2**24

# What JSON makes of the plain fields. No subclasses: `true` is no number.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (float, int),
    "int | None": (int, type(None)),
}


@dataclass(frozen=True)
class ShardInfo:
    """One TFRecord file: name, size in bytes, digest, and the byte at which each record starts."""

    file: str
    bytes: int
    sha256: str
    records: int
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class SplitInfo:
    """One split.

    Attributes:
        images: their number.
        captions: their number.
        instances: the classes 0 to `instances - 1` of the instance loss.
        shards: the files.
        lone_instances: how many of these, persons mostly, have one image alone; images that are
            instances of their own do not count. None in a manifest of an earlier version.
    """

    images: int
    captions: int
    instances: int
    shards: tuple[ShardInfo, ...]
    lone_instances: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds.

    Attributes:
        source: the reader it came from.
        seed: orders the training images, and makes the split or the scenes where they are drawn.
        lowercase: whether captions are lower-cased before words are looked up.
        vocabulary_size: number of words in `vocabulary.txt`.
        vocabulary_sha256: digest of that file.
        vocabulary_coverage: share of the words of the training captions that it holds, in 0..1.
        split_digest: digest of which image is in which split, whatever their order.
        splits: by name.
        rejected: number of lines of `rejected.jsonl`.
        caption_lengths: number of training captions by how many words of the vocabulary they have.
            None in a manifest of an earlier version.
        bitmaps: number of BMP images, which are stored as PNG. None in a manifest of an earlier
            version, which took none.
        format: version of this layout.
    """

    source: str
    seed: int
    lowercase: bool
    vocabulary_size: int
    vocabulary_sha256: str
    vocabulary_coverage: float
    split_digest: str
    splits: Mapping[str, SplitInfo]
    rejected: int
    caption_lengths: Mapping[int, int] | None = None
    bitmaps: int | None = None
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        """Writes `manifest.json` atomically, which ends what `discard` began."""
        write_json(folder / MANIFEST_FILE, asdict(self))
        (folder / UNFINISHED_FILE).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Reads and checks the manifest of a prepared folder.

        Raises:
            UserError: the folder is missing, was not prepared to the end or by another version,
                its manifest is damaged, or a shard is missing or has another size.
        """
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: give the --out of prepare")
        path = folder / MANIFEST_FILE
        if not path.is_file():
            raise UserError(f"{folder} has no {MANIFEST_FILE}: run prepare to its end first")
        manifest = _parse(path, _read(path, "run prepare again, with an empty --out"))
        for split in manifest.splits.values():
            for shard in split.shards:
                _check_shard(folder / shard.file, shard)
        return manifest


def discard(folder: Path, shards: Iterable[str] = ()) -> None:
    """Declares a folder not prepared, before anything that its manifest speaks of is changed.

    Args:
        folder: prepared, or not.
        shards: names of files that will be written; a run after a kill may replace them.
    """
    owned = (written_shards(folder) or set()) | set(shards)
    write_json(folder / UNFINISHED_FILE, sorted(owned))
    (folder / MANIFEST_FILE).unlink(missing_ok=True)


def written_shards(folder: Path) -> set[str] | None:
    """Returns the names of the shards that `prepare` wrote there, None where it never did.

    Raises:
        UserError: there is a manifest, cut short.
    """
    if (folder / UNFINISHED_FILE).is_file():
        names = read_json(folder / UNFINISHED_FILE)
    elif (folder / MANIFEST_FILE).is_file():
        remedy = "choose another --out, or remove what is there"
        names = _listed(_read(folder / MANIFEST_FILE, remedy))
    else:
        names = None
    return None if names is None else {name for name in names if _SHARD.fullmatch(str(name))}


def refuse_foreign(folder: Path, images: Iterable[Path]) -> None:
    """Makes sure that only what `prepare` wrote is replaced.

    Args:
        folder: to prepare into; it may hold other files only beside a manifest.
        images: what is read; these, and folders of them, may lie there too.

    Raises:
        UserError: there are files that `prepare` did not write.
    """
    written = written_shards(folder)
    names = {item.name for item in folder.iterdir() if not _ASIDE.fullmatch(item.name)}
    if written is not None:
        names = {name for name in names if _SHARD.fullmatch(name)} - written
    if names:
        root = os.path.join(folder.resolve(), "")
        inside = (str(path) for path in images if str(path).startswith(root))
        names -= {path[len(root) :].split(os.sep)[0] for path in inside}
    if names:
        found = f"{min(names)}, which prepare did not write"
        raise UserError(f"{folder} holds {found}: choose another --out, or move it away")


def _read(path: Path, remedy: str) -> Any:
    try:
        return read_json(path)
    except UserError as error:
        raise UserError(f"{error}: {remedy}") from None


def _listed(value: Any) -> list[str] | None:
    """Returns the shards of a manifest of any format, None where it is something else's."""
    try:
        splits = value["splits"].values()
        return [shard["file"] for split in splits for shard in split["shards"]]
    except (KeyError, TypeError, AttributeError):
        return None


def _parse(path: Path, value: Any) -> Manifest:
    found = value.get("format") if isinstance(value, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, not {FORMAT}: run prepare again")
    try:
        splits = {name: _parse_split(value["splits"][name]) for name in SPLITS}
        if lengths := value.get("caption_lengths"):
            # JSON has no other keys than text.
            value |= {"caption_lengths": {int(n): _whole(m) for n, m in lengths.items()}}
        manifest = Manifest(**(value | {"splits": splits}))
        _check_types(manifest)
        return manifest
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path} is damaged: run prepare again") from None


def _parse_split(value: dict[str, Any]) -> SplitInfo:
    shards = tuple(map(_parse_shard, value["shards"]))
    info = SplitInfo(**(value | {"shards": shards}))
    _check_types(info)
    # Prepared images have a caption each, or more.
    if sum(shard.records for shard in shards) != info.images or info.captions < info.images:
        raise ValueError
    return info


def _parse_shard(value: dict[str, Any]) -> ShardInfo:
    offsets = tuple(map(_whole, value["offsets"]))
    info = ShardInfo(**(value | {"offsets": offsets}))
    _check_types(info)
    if len(offsets) != info.records:
        raise ValueError
    return info


def _check_types(info: Manifest | SplitInfo | ShardInfo) -> None:
    """Makes sure that plain fields hold what they are declared to.

    Raises:
        TypeError: one does not.
    """
    for field in fields(info):
        kind = type(getattr(info, field.name))
        if kind not in _KINDS.get(str(field.type), (kind,)):
            raise TypeError(field.name)


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _check_shard(path: Path, shard: ShardInfo) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: run prepare again")
    size = path.stat().st_size
    if size != shard.bytes:
        raise UserError(f"{path} has {size} bytes, not {shard.bytes}: run prepare again")
