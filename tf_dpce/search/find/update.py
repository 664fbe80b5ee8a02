"""Brings the index of a folder up to date: embeds what is new, and forgets what is gone.

    INDEX/                        the index of the folder, see `search.index`
    INDEX/find/folder.json        the folder
    INDEX/find/rejected.jsonl     files that cannot be embedded: id, bytes, modified, reason

A file counts as unchanged if its size and time of change are those that are recorded, and is not
read again. What it holds decides about one that is new or changed: a content that the index has
already, because the file was only moved or copied, is not encoded again.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tf_dpce.errors import UserError
from tf_dpce.export.encoder import Encoder
from tf_dpce.files import (
    cache_folder,
    check_writable,
    exclusive_lock,
    read_json,
    remove_stale,
    write_json,
)
from tf_dpce.logging import progress
from tf_dpce.search.embedding.embed import encode_contents, read_ahead
from tf_dpce.search.embedding.facts import image_schema
from tf_dpce.search.embedding.inputs import CHANGED, Item, Refusal
from tf_dpce.search.embedding.store import IMAGES
from tf_dpce.search.find.listing import FileState, RejectedFiles, list_images
from tf_dpce.search.index.folder import FolderIndex
from tf_dpce.search.index.manifest import MANIFEST

_STATE = "find"
_FOLDER = "folder.json"
_REJECTED = "rejected.jsonl"
# What a killed process can lose: a number of images, and seconds of work.
_PIECE, _PIECE_SECONDS = 1024, 20


@dataclass
class Update:
    """What an update found, in numbers of images but for the last.

    Attributes:
        new: those that were encoded.
        known: those whose content was there under another name, or had only been touched.
        gone: those that were forgotten.
        rejected: those that cannot be embedded, and were not rejected before.
        waiting: those that changed while they were read, and will be looked at next time.
        unreadable: files and folders that could not be read, or whose names are not UTF-8.
    """

    new: int = 0
    known: int = 0
    gone: int = 0
    rejected: int = 0
    waiting: int = 0
    unreadable: tuple[str, ...] = ()


def default_index(folder: Path, model: str) -> Path:
    """Returns where the index of a folder lies by the embeddings of a model, given its digest."""
    name = re.sub(r"[^\w.-]", "_", folder.name, flags=re.ASCII)[:40]
    digest = hashlib.sha256(os.fsencode(folder) + b"\0" + model.encode()).hexdigest()
    return cache_folder(f"{name}-{digest[:16]}")


def rejected_file(out: Path) -> Path:
    """Returns the list of the files that cannot be embedded, in the folder of an index."""
    return out / _STATE / _REJECTED


def existing_index(folder: Path, out: Path, model: str) -> FolderIndex | None:
    """Opens the index of a folder; None if there is none yet.

    Raises:
        UserError: `out` is of another folder or model, or something else, or cannot be made.
    """
    listed = out / _STATE / _FOLDER
    if listed.is_file():
        if read_json(listed) != {"folder": str(folder)}:
            message = f"{out} is an index of another folder than {folder}: give another --index"
            raise UserError("find.other_index", message, out)
        if (out / MANIFEST).is_file():
            index = FolderIndex(out)
            if index.model != model:
                message = f"{out} was built with another model: give another --index, or none"
                raise UserError("search.other_model", message, out)
            return index
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"{out} is nothing that find made: give another --index, or none"
        raise UserError("find.other_index", message, out)
    check_writable(out)
    return None


def update_index(folder: Path, out: Path, model: str, load: Callable[[], Encoder]) -> Update | None:
    """Brings the index of a folder up to date.

    It is published in pieces, so that a killed process loses little: the next one goes on. The end
    is the same as without a kill.

    Args:
        folder: absolute path of the folder of images; ids are paths below it.
        out: folder of the index; `existing_index` has checked it.
        model: digest of the model.
        load: returns the model; it is called only if there is something to encode.

    Returns:
        What was done; None if another process is doing it.

    Raises:
        UserError: there is no image in the folder. Nothing is forgotten then, because a disk
            that is not mounted is such a folder.
    """
    files, unreadable = list_images(folder)
    if not files:
        message = f"there is no image below {folder} that can be read: give another folder"
        raise UserError("find.no_images", message, folder)
    state = out / _STATE
    if not (state / _FOLDER).is_file():
        write_json(state / _FOLDER, {"folder": str(folder)})
    try:
        with exclusive_lock(state):
            remove_stale(state)
            index = existing_index(folder, out, model)
            updater = _Updater(folder, files, unreadable, index, rejected_file(out))
            return updater.run(lambda dimension: FolderIndex.create(out, model, dimension), load)
    except UserError as error:
        if (error.code, error.path) == ("file.locked", state):
            return None
        raise


class _Updater:
    """One update of an index by a listing of its folder."""

    def __init__(
        self,
        folder: Path,
        files: dict[str, FileState],
        unreadable: list[str],
        index: FolderIndex | None,
        rejected: Path,
    ) -> None:
        self._folder, self._files = str(folder).rstrip("/"), files
        self._unreadable = unreadable
        self._index = index
        self._update = Update(unreadable=tuple(unreadable))
        self._rejected = RejectedFiles(rejected)
        self._known: dict[str, FileState] = {}
        self._owners: dict[str, str] = {}  # the image of each content
        # Of the piece at hand.
        self._records: list[dict[str, Any]] = []
        self._vectors: dict[str, np.ndarray] = {}  # by content
        self._begun = 0.0

    def run(self, create: Callable[[int], FolderIndex], load: Callable[[], Encoder]) -> Update:
        """Does what there is to do."""
        if self._index and self._index.counts:
            self._known = _states(self._index)
        changed = sorted(name for name in self._files if self._is_changed(name))
        if changed:
            encoder = load()
            self._index = self._index or create(encoder.dimension)
            if self._known:
                self._owners = _owners(self._index)
            self._add(changed, encoder)
        gone = [name for name in self._known if self._is_gone(name)]
        if gone:
            self._update.gone = self._index.delete(IMAGES, gone)
        self._rejected.save(self._files)
        return self._update

    def _is_changed(self, name: str) -> bool:
        state = self._rejected.state(name) or self._known.get(name)
        return state != self._files[name]

    def _is_gone(self, name: str) -> bool:
        if name in self._files:
            return name in self._rejected
        path = f"{self._folder}/{name}"
        return not any(path == lost or path.startswith(f"{lost}/") for lost in self._unreadable)

    def _add(self, names: list[str], encoder: Encoder) -> None:
        items = (Item(name, path=f"{self._folder}/{name}") for name in names)
        done, self._begun = 0, time.monotonic()
        with progress("images checked") as display:
            for chunk, read in read_ahead(items):
                self._take(chunk, read, encoder)
                done += len(chunk)
                display.update(done, len(names))
                late = time.monotonic() - self._begun > _PIECE_SECONDS
                if late or len(self._records) >= _PIECE:
                    self._publish()
        self._publish()

    def _take(self, chunk: list[Item], read: list[Any], encoder: Encoder) -> None:
        """Adds a chunk of files to the piece at hand, or to the rejected ones."""
        usable = []
        for item, (content, facts) in zip(chunk, read, strict=True):
            if isinstance(content, Refusal):
                self._refuse(item.id, content)
            else:
                usable.append((item, content, facts))
        wanted = {facts["content"]: content for _, content, facts in usable}
        self._vectors |= self._known_vectors(wanted.keys() - self._vectors.keys())
        wanted = {key: content for key, content in wanted.items() if key not in self._vectors}
        answers = encode_contents(encoder, IMAGES, [*wanted.values()])
        encoded = dict(zip(wanted, answers, strict=True))
        refused = {key: each for key, each in encoded.items() if isinstance(each, Refusal)}
        self._vectors |= {key: each for key, each in encoded.items() if key not in refused}
        for item, _, facts in usable:
            if facts["content"] in refused:
                self._refuse(item.id, refused[facts["content"]])
                continue
            self._rejected.discard(item.id)
            self._records.append({"id": item.id, "path": item.path, **facts})
            self._update.known += facts["content"] not in wanted
            self._update.new += facts["content"] in wanted

    def _known_vectors(self, contents: Iterable[str]) -> dict[str, np.ndarray]:
        """Returns the embeddings of the contents that the index has, by content."""
        owners = {content: self._owners[content] for content in contents if content in self._owners}
        if not owners:
            return {}
        records = self._index.records(IMAGES, [*owners.values()])
        pairs = zip(owners, records, strict=True)
        # An image of this update may have taken the place of the one that had the content.
        still = [content for content, record in pairs if record["content"] == content]
        vectors = self._index.vectors(IMAGES, [owners[content] for content in still])
        return dict(zip(still, vectors, strict=True))

    def _refuse(self, name: str, refusal: Refusal) -> None:
        if refusal.reason == CHANGED:
            self._update.waiting += 1
        elif refusal.status is None:
            # Permissions change without a trace in the file, so that it is tried every time.
            self._update.unreadable += (f"{self._folder}/{name}",)
        else:
            self._rejected.add(name, self._files[name], refusal.reason)
            self._update.rejected += 1

    def _publish(self) -> None:
        """Puts the piece at hand into the index."""
        if self._records:
            vectors = np.stack([self._vectors[record["content"]] for record in self._records])
            table = pa.Table.from_pylist(self._records, image_schema())
            self._index.add(IMAGES, table, vectors)
            self._owners |= {record["content"]: record["id"] for record in self._records}
        self._rejected.save(self._files)
        self._records, self._vectors, self._begun = [], {}, time.monotonic()


def _states(index: FolderIndex) -> dict[str, FileState]:
    """Returns what is recorded of each image's file, by id."""
    table = index.table(IMAGES, ["id", "bytes", "modified"])
    # A date that is not known is that of no file.
    modified = table["modified"].cast("int64").to_pylist()
    states = map(FileState, table["bytes"].to_pylist(), modified)
    return dict(zip(table["id"].to_pylist(), states, strict=True))


def _owners(index: FolderIndex) -> dict[str, str]:
    """Returns an image of each content."""
    table = index.table(IMAGES, ["id", "content"])
    return dict(zip(table["content"].to_pylist(), table["id"].to_pylist(), strict=True))
