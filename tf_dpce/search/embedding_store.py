"""A folder of embeddings: shards of vectors, a record for each, and the manifest that lists them.

    OUT/embeddings.json            the manifest: model, dimension, and what is done of each kind
    OUT/images-00000.npy           float32 [n, D], unit vectors
    OUT/images-00000.jsonl         n lines: id, path and facts (id and text for texts)
    OUT/rejected-images.jsonl      inputs without an embedding: id, path, status, reason

A shard counts once the manifest lists it, and the manifest is replaced by one rename.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.files import publish_file, read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = "images"
TEXTS = "texts"
KINDS = (IMAGES, TEXTS)

MANIFEST = "embeddings.json"
SHARD_SIZE = 4096  # default number of inputs in a shard
_SEED = 0


@dataclass(frozen=True)
class Shard:
    """A file of embeddings.

    Attributes:
        name: name of its files, without the suffix.
        taken: number of inputs.
        embedded: number of inputs that have an embedding; the others were rejected.
    """

    name: str
    taken: int
    embedded: int


@dataclass(frozen=True)
class KindProgress:
    """The embeddings of one kind.

    Attributes:
        inputs: digest of the inputs, by which a resumed run recognises them.
        total: number of inputs.
        shards: finished shards, in the order of the inputs.
    """

    inputs: str
    total: int
    shards: tuple[Shard, ...] = ()

    @property
    def taken(self) -> int:
        """Number of inputs that are done."""
        return sum(shard.taken for shard in self.shards)

    @property
    def embedded(self) -> int:
        """Number of embeddings."""
        return sum(shard.embedded for shard in self.shards)

    @property
    def rejected(self) -> int:
        """Number of inputs that have no embedding."""
        return self.taken - self.embedded

    @property
    def complete(self) -> bool:
        """Whether every input is done."""
        return self.taken == self.total


@dataclass(frozen=True)
class StoreManifest:
    """The content of `embeddings.json`.

    Attributes:
        model: digest of the model, see `model_digest`.
        dimension: D.
        kinds: progress by kind, "images" and "texts".
    """

    model: str
    dimension: int
    kinds: dict[str, KindProgress]

    @classmethod
    def load(cls, folder: Path) -> StoreManifest:
        """Reads the manifest of a folder.

        Raises:
            UserError: there is none, or it is damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError("embeddings.missing", f"{path} does not exist: run embed first", path)
        content = read_json(path)
        try:
            kinds = {
                kind: KindProgress(
                    value["inputs"],
                    value["total"],
                    tuple(Shard(**shard) for shard in value["shards"]),
                )
                for kind, value in content["kinds"].items()
            }
            return cls(content["model"], content["dimension"], kinds)
        except (KeyError, TypeError, AttributeError):
            message = f"{path} is damaged: embed into another folder"
            raise UserError("embeddings.manifest", message, path) from None

    def save(self, folder: Path) -> None:
        """Writes the manifest atomically."""
        content = asdict(self)
        for kind, done in self.kinds.items():
            counts = {"embedded": done.embedded, "rejected": done.rejected}
            content["kinds"][kind] |= {**counts, "complete": done.complete}
        write_json(folder / MANIFEST, content)


def rejected_file(folder: Path, kind: str) -> Path:
    """Returns the list of the inputs of `kind` that have no embedding."""
    return folder / f"rejected-{kind}.jsonl"


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes records as JSON Lines, atomically."""
    with publish_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        # The dates of an image have no form in JSON.
        encode = partial(json.dumps, ensure_ascii=False, default=datetime.isoformat)
        stream.writelines(encode(record) + "\n" for record in records)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a JSON Lines file that `write_lines` wrote."""
    with path.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


class StoredEmbeddings:
    """All finished embeddings of a kind in some folders, read as they are needed.

    Args:
        stores: folders and their manifests, of one model.
        kind: "images" or "texts".

    Raises:
        UserError: the embeddings of a folder are unfinished.
    """

    def __init__(self, stores: Mapping[Path, StoreManifest], kind: str) -> None:
        self.kind, self._shards = kind, []
        for folder, store in stores.items():
            self.dimension, done = store.dimension, store.kinds.get(kind)
            if done is not None and not done.complete:
                message = f"{folder} holds {done.taken} of {done.total} {kind}: run embed again"
                raise UserError("embeddings.unfinished", message, folder)
            shards = () if done is None else done.shards
            self._shards += [(folder / s.name, s.embedded) for s in shards if s.embedded]
        self.rows = sum(rows for _, rows in self._shards)
        self.records = [path.with_suffix(".jsonl") for path, _ in self._shards]

    def arrays(self) -> Iterator[np.ndarray]:
        """Maps the embeddings of each shard, float32 `[rows, D]`, without reading them.

        Raises:
            UserError: a shard is missing or damaged.
        """
        for stem, rows in self._shards:
            path = stem.with_suffix(".npy")
            try:
                vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, EOFError, FileNotFoundError):
                vectors = None
            if vectors is None or vectors.shape != (rows, self.dimension):
                message = f"{path} is missing or damaged: embed into another folder"
                raise UserError("embeddings.shard", message, path)
            yield vectors

    def sample(self, size: int) -> np.ndarray:
        """Returns at most `size` of all, drawn with a fixed seed, in order, float32 `[size, D]`."""
        draw = np.random.default_rng(_SEED)
        chosen = np.sort(draw.choice(self.rows, min(size, self.rows), replace=False))
        starts = np.cumsum([0, *(rows for _, rows in self._shards)])
        parts = np.split(chosen, np.searchsorted(chosen, starts[1:-1]))
        shares = zip(self.arrays(), parts, starts[:-1], strict=True)
        return np.concatenate([vectors[part - start] for vectors, part, start in shares])


def record_schema(kind: str) -> pa.Schema:
    """Returns the columns of the records of a kind."""
    import pyarrow as pa

    from tf_dpce.search.facts import image_schema

    texts = pa.schema([("id", pa.string()), ("text", pa.string())])
    return image_schema() if kind == IMAGES else texts


def read_records(path: Path, kind: str) -> pa.Table:
    """Reads the records of embeddings of a kind, with the types of their columns."""
    import pyarrow.json

    schema = record_schema(kind)
    if not path.stat().st_size:
        return schema.empty_table()
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    return pyarrow.json.read_json(path, parse_options=options)
