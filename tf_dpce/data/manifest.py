"""The manifest: what a prepared folder holds. It is written last, so it makes the folder whole."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tf_dpce.datasets.listing import SPLITS
from tf_dpce.datasets.repeats import Repeats
from tf_dpce.errors import UserError
from tf_dpce.files import OTHER_TYPE, from_json, is_temporary, json_bytes
from tf_dpce.remote_path import AnyPath
from tf_dpce.storage import open_folder

FORMAT = 1
SHARD_BYTES = 100 * 2**20  # a new shard is begun once one has this many bytes
MANIFEST_FILE = "manifest.json"
VOCABULARY_FILE = "vocabulary.txt"
REJECTED_FILE = "rejected.jsonl"

# Stands in place of a manifest while prepare replaces what the folder holds.
UNFINISHED_FILE = ".unfinished.json"

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}-of-\d{{5,}}\.tfrecord")

# Keras casts labels to float32, in which larger whole numbers collide.
MAX_INSTANCES = 2**24


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
        images: number of images.
        captions: number of captions.
        instances: number of instances, the classes 0 to `instances - 1` of the instance loss.
        shards: the files.
        lone_instances: number of instances, mostly persons, with one image; images that are
            instances of their own do not count.
    """

    images: int
    captions: int
    instances: int
    shards: tuple[ShardInfo, ...]
    lone_instances: int = 0


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds.

    Attributes:
        source: name of the reader that it came from.
        seed: seed of the order of training images, and of the split or the scenes if drawn.
        lowercase: whether captions are lower-cased before words are looked up.
        vocabulary_size: number of words in `vocabulary.txt`.
        vocabulary_sha256: digest of that file.
        vocabulary_coverage: share of the words of the training captions that it holds, in 0..1.
        split_digest: digest of which image is in which split, whatever their order.
        splits: the splits by name.
        rejected: number of lines of `rejected.jsonl`.
        caption_lengths: number of training captions by how many words of the vocabulary they have.
        converted: number of images of other formats, which are stored as PNG.
        repeats: what occurs more than once.
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
    caption_lengths: Mapping[int, int]
    converted: int = 0
    repeats: Repeats = Repeats()
    format: int = FORMAT

    def save(self, folder: AnyPath) -> None:
        """Writes `manifest.json` atomically, which ends what `discard` began."""
        files = open_folder(folder)
        files.write(MANIFEST_FILE, json_bytes(asdict(self)))
        files.remove(UNFINISHED_FILE)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Reads and checks the manifest of a prepared folder.

        Raises:
            UserError: the folder is missing, was not prepared to the end or by another version,
                its manifest is damaged, or a shard is missing or has another size.
        """
        if not folder.is_dir():
            message = f"{folder} is not a folder: give the --out of prepare"
            raise UserError("data.folder", message, folder)
        path = folder / MANIFEST_FILE
        if not path.is_file():
            message = f"{folder} has no {MANIFEST_FILE}: run prepare to its end first"
            raise UserError("data.unfinished", message, folder)
        manifest = cls.parse(path, path.read_bytes())
        for split in manifest.splits.values():
            for shard in split.shards:
                file = folder / shard.file
                size = file.stat().st_size if file.is_file() else None
                if size != shard.bytes:
                    found = "is missing" if size is None else f"has {size} bytes, not {shard.bytes}"
                    raise UserError("data.shard", f"{file} {found}: run prepare again", file)
        return manifest

    @classmethod
    def parse(cls, path: Path | str, contents: bytes) -> Manifest:
        """Checks the content of a manifest, which lies at `path`.

        Raises:
            UserError: it is damaged, or of another version.
        """
        return _parse(path, _json(path, contents, "run prepare again, with an empty --out"))


def discard(folder: AnyPath) -> None:
    """Declares a folder not prepared, before anything that its manifest speaks of is changed."""
    files = open_folder(folder)
    files.write(UNFINISHED_FILE, json_bytes({}))
    files.remove(MANIFEST_FILE)


def written_shards(folder: AnyPath) -> set[str] | None:
    """Returns the names of the shards that `prepare` wrote there, None if it never did.

    Raises:
        UserError: there is a manifest, cut short.
    """
    files = open_folder(folder)
    names = files.names()
    if UNFINISHED_FILE not in names:
        if MANIFEST_FILE not in names:
            return None
        remedy = "choose another --out, or remove what is there"
        value = _json(files.path(MANIFEST_FILE), files.read([MANIFEST_FILE])[0], remedy)
        if not isinstance(value, dict) or "split_digest" not in value:
            # The manifest of something else.
            return None
    return set(filter(_SHARD.fullmatch, names))


def refuse_foreign(folder: AnyPath, images: Iterable[AnyPath]) -> None:
    """Makes sure that only what `prepare` wrote is replaced.

    Args:
        folder: the folder to prepare into; it may hold other files only beside a manifest.
        images: the images to read; these, and folders of them, may lie there too.

    Raises:
        UserError: there are files that `prepare` did not write.
    """
    if written_shards(folder) is not None:
        return
    names = {name for name in open_folder(folder).names() if not is_temporary(name)}
    root = os.path.join(folder.resolve(), "")
    inside = (str(path) for path in images if str(path).startswith(root))
    names -= {path[len(root) :].split(os.sep)[0] for path in inside}
    if names:
        message = f"{folder} holds {min(names)}, which prepare did not write"
        message = f"{message}: choose another --out, or move it away"
        raise UserError("prepare.foreign", message, folder)


def _json(path: Path | str, contents: bytes, remedy: str) -> Any:
    try:
        return json.loads(contents)
    except ValueError as error:
        line = getattr(error, "lineno", None)
        message = f"{path} is not valid JSON: {error}: {remedy}"
        raise UserError("data.manifest", message, path, line) from None


def _parse(path: Path | str, value: Any) -> Manifest:
    found = value.get("format") if isinstance(value, dict) else None
    if found != FORMAT:
        message = f"{path} has format {found}, not {FORMAT}: run prepare again"
        raise UserError("data.format", message, path)
    try:
        manifest = from_json(Manifest, value)
        consistent = set(manifest.splits) == set(SPLITS) and all(
            # Prepared images have a caption each, or more.
            sum(shard.records for shard in split.shards) == split.images <= split.captions
            and all(len(shard.offsets) == shard.records for shard in split.shards)
            for split in manifest.splits.values()
        )
    except OTHER_TYPE:
        consistent = False
    if not consistent:
        raise UserError("data.manifest", f"{path} is damaged: run prepare again", path)
    return manifest
