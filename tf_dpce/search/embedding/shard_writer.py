"""Writes a folder of embeddings shard by shard, from one process or many; see `store`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.files import json_bytes
from tf_dpce.logging import logger
from tf_dpce.search.embedding.input_shards import Inputs
from tf_dpce.search.embedding.store import (
    KINDS,
    KindProgress,
    Shard,
    StoreManifest,
    as_lines,
    manifest_file,
    rejected_file,
)
from tf_dpce.storage import open_folder


@dataclass(frozen=True)
class FinishedShard:
    """What the last file of a shard says.

    Attributes:
        shard: the shard.
        dimension: D.
        rejected: a record for each of its inputs that has no embedding.
    """

    shard: Shard
    dimension: int
    rejected: list[dict[str, Any]]


class ShardWriter:
    """Publishes shards of embeddings of one kind. Two writers of one shard write the same bytes.

    Args:
        place: the folder, or its address.
        kind: "images" or "texts".
    """

    def __init__(self, place: str | Path, kind: str) -> None:
        self.place, self.kind = str(place), kind
        self._folder = open_folder(place)
        self._finished = re.compile(rf"{kind}-(\d{{5,}})\.json")

    def begin(self, model: str, inputs: Inputs, shard_size: int) -> StoreManifest:
        """Declares what is to be embedded, or finds the same declared or finished.

        Returns:
            The manifest in force, which may have shards of another size.

        Raises:
            UserError: the folder holds embeddings of another model or of other inputs.
        """
        self._folder.prepare()
        if (found := check_store(self.place, model, inputs)) is None:
            planned = KindProgress(inputs.digest, inputs.total, shard_size=shard_size)
            found = StoreManifest(model, 0, {self.kind: planned})
            try:
                self._folder.create(manifest_file(self.kind), found.contents(self.kind))
            except FileExistsError:
                # Another process of the fleet was faster; or somebody else was.
                found = check_store(self.place, model, inputs) or found
        size = found.kinds[self.kind].shard_size
        if size != shard_size:
            logger.info(f"{self.place} goes on with shards of {size:,}, as it was begun")
        return found

    def path(self, name: str) -> str:
        """Returns the path or address of a file of the folder."""
        return self._folder.path(name)

    def finished(self) -> set[int]:
        """Returns the numbers of the shards that are finished."""
        found = map(self._finished.fullmatch, self._folder.names())
        return {int(match[1]) for match in found if match}

    def publish(
        self,
        number: int,
        vectors: np.ndarray,
        records: Iterable[dict[str, Any]],
        rejected: Sequence[dict[str, Any]],
    ) -> None:
        """Writes the files of a shard.

        Args:
            number: its place among the input shards.
            vectors: float32 `[n, D]`.
            records: a record for each vector.
            rejected: a record for each input without one.
        """
        name, stream = _name(self.kind, number), io.BytesIO()
        np.save(stream, vectors, allow_pickle=False)
        self._folder.write(f"{name}.npy", stream.getvalue())
        self._folder.write(f"{name}.jsonl", as_lines(records))
        counts = {"taken": len(vectors) + len(rejected), "embedded": len(vectors)}
        last = {**counts, "dimension": vectors.shape[1], "rejected": rejected}
        # From now on the shard counts.
        self._folder.write(f"{name}.json", json_bytes(last))

    def read(self, numbers: Sequence[int]) -> list[FinishedShard]:
        """Reads the last files of shards.

        Raises:
            UserError: one of them is damaged.
        """
        names = [f"{_name(self.kind, number)}.json" for number in numbers]
        found = []
        for name, contents in zip(names, self._folder.read(names), strict=True):
            try:
                value = json.loads(contents)
                shard = Shard(name.removesuffix(".json"), value["taken"], value["embedded"])
                found.append(FinishedShard(shard, value["dimension"], value["rejected"]))
            except (KeyError, TypeError, ValueError):
                path = self._folder.path(name)
                message = f"{path} is damaged: remove it, and run embed again"
                raise UserError("embeddings.shard", message, path) from None
        return found

    def complete(self, begun: StoreManifest, shards: Sequence[FinishedShard]) -> StoreManifest:
        """Writes the list of what was rejected and then the manifest of all shards."""
        done = replace(begun.kinds[self.kind], shards=tuple(item.shard for item in shards))
        manifest = StoreManifest(begun.model, shards[0].dimension, {self.kind: done})
        rejected = as_lines(record for item in shards for record in item.rejected)
        self._folder.write(rejected_file(self.kind), rejected)
        self._folder.write(manifest_file(self.kind), manifest.contents(self.kind))
        return manifest


def check_store(place: str | Path, model: str, inputs: Inputs) -> StoreManifest | None:
    """Returns the manifest of a folder to embed into, or None if it has none of this kind.

    Raises:
        UserError: the folder holds embeddings of another model or of other inputs.
    """
    names = open_folder(place).names()
    if not any(manifest_file(kind) in names for kind in KINDS):
        return None
    manifest = StoreManifest.load(place)
    if manifest.model != model:
        message = f"{place} holds embeddings of another model: give another folder"
        raise UserError("embeddings.other_model", message, place)
    done = manifest.kinds.get(inputs.kind)
    if done and (done.inputs, done.total) != (inputs.digest, inputs.total):
        raise UserError(
            "embeddings.other_inputs",
            f"{place} holds embeddings of other {inputs.kind}, or of files that changed since: "
            "give another folder",
            place,
        )
    return manifest if done else None


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number:05d}"
