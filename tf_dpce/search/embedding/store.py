"""A folder of embeddings: shards of vectors, a record for each, and a manifest for each kind.

    OUT/images.json                the manifest of the images: model, dimension, inputs, shards
    OUT/images-00000.npy           float32 [n, D], unit vectors
    OUT/images-00000.jsonl         n lines: id, path and facts (id and text for texts)
    OUT/images-00000.json          counts, and the inputs of the shard that were rejected
    OUT/rejected-images.jsonl      inputs without an embedding: id, path, status, reason

The manifest is there from the start, says what is to be embedded, and lists the shards once all of
them are finished. A shard is finished once `images-00000.json` is there, its last file. Each file
appears at once, and its content is a function of model and inputs alone: so any number of processes
may work on the shards at the same time, and any of them may be killed.
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
from tf_dpce.evaluation.cut import cut
from tf_dpce.files import json_bytes, publish_bytes
from tf_dpce.storage import open_folder

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = "images"
TEXTS = "texts"
KINDS = (IMAGES, TEXTS)

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
        shards: the shards in the order of the inputs; none until all are finished.
        shard_size: number of inputs in a shard.
    """

    inputs: str
    total: int
    shards: tuple[Shard, ...] = ()
    shard_size: int = SHARD_SIZE

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
    """What the manifests of a folder say.

    Attributes:
        model: digest of the model, see `model_digest`.
        dimension: D; 0 until all shards of a kind are finished.
        kinds: progress by kind, "images" and "texts".
    """

    model: str
    dimension: int
    kinds: dict[str, KindProgress]

    @classmethod
    def load(cls, folder: Path | str) -> StoreManifest:
        """Reads the manifests of a folder, which may be an address.

        Raises:
            UserError: there is none, one is damaged, or they are of two models.
        """
        files = open_folder(folder)
        found = [kind for kind in KINDS if manifest_file(kind) in files.names()]
        if not found:
            message = f"{folder} holds no embeddings: run embed first"
            raise UserError("embeddings.missing", message, folder)
        names = [manifest_file(kind) for kind in found]
        parsed = [
            cls.parse(files.path(name), kind, contents)
            for kind, name, contents in zip(found, names, files.read(names), strict=True)
        ]
        if len({one.model for one in parsed}) > 1:
            message = f"{folder} holds embeddings of two models: embed into another folder"
            raise UserError("embeddings.other_model", message, folder)
        kinds = {kind: progress for one in parsed for kind, progress in one.kinds.items()}
        return cls(parsed[0].model, max(one.dimension for one in parsed), kinds)

    @classmethod
    def parse(cls, path: Path | str, kind: str, contents: bytes) -> StoreManifest:
        """Checks the content of the manifest of a kind, which lies at `path`.

        Raises:
            UserError: it is damaged.
        """
        try:
            value = json.loads(contents)
            shards = tuple(Shard(**shard) for shard in value["shards"])
            done = KindProgress(value["inputs"], value["total"], shards, value["shard_size"])
            return cls(value["model"], value["dimension"], {kind: done})
        except (KeyError, TypeError, ValueError):
            message = f"{path} is damaged: embed into another folder"
            raise UserError("embeddings.manifest", message, path) from None

    def contents(self, kind: str) -> bytes:
        """Returns the content of the manifest of a kind."""
        done = self.kinds[kind]
        counts = {"embedded": done.embedded, "rejected": done.rejected, "complete": done.complete}
        counts = counts if done.complete else {"complete": False}
        value = {"model": self.model, "dimension": self.dimension, **asdict(done), **counts}
        return json_bytes(value)


def manifest_file(kind: str) -> str:
    """Returns the name of the manifest of a kind."""
    return f"{kind}.json"


def rejected_file(kind: str) -> str:
    """Returns the name of the list of the inputs of a kind that have no embedding."""
    return f"rejected-{kind}.jsonl"


def as_lines(records: Iterable[dict[str, Any]]) -> bytes:
    """Returns records as JSON Lines."""
    # The dates of an image have no form in JSON.
    encode = partial(json.dumps, ensure_ascii=False, default=datetime.isoformat)
    return "".join(encode(record) + "\n" for record in records).encode()


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes records as JSON Lines, atomically."""
    publish_bytes(path, as_lines(records))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a JSON Lines file that `write_lines` wrote."""
    with path.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


class StoredEmbeddings:
    """All finished embeddings of a kind in some folders, read as they are needed.

    Args:
        stores: folders and their manifests, of one model.
        kind: "images" or "texts".
        dimension: how many numbers of each are taken, from the first; all by default. They are
            brought to unit length.

    Raises:
        UserError: the embeddings of a folder are unfinished.
    """

    def __init__(
        self, stores: Mapping[Path, StoreManifest], kind: str, dimension: int | None = None
    ) -> None:
        self.kind, self._shards, self._cut = kind, [], dimension
        for folder, store in stores.items():
            self._stored, done = store.dimension, store.kinds.get(kind)
            if done is not None and not done.complete:
                message = f"{folder} holds a part of {done.total} {kind}: run embed again"
                raise UserError("embeddings.unfinished", message, folder)
            shards = () if done is None else done.shards
            self._shards += [(folder / s.name, s.embedded) for s in shards if s.embedded]
        self.rows = sum(rows for _, rows in self._shards)
        self.records = [path.with_suffix(".jsonl") for path, _ in self._shards]

    def arrays(self) -> Iterator[np.ndarray]:
        """Maps the embeddings of each shard, float32 `[rows, D]`; they are read if they are cut.

        Raises:
            UserError: a shard is missing or damaged.
        """
        for stem, rows in self._shards:
            path = stem.with_suffix(".npy")
            try:
                vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, EOFError, FileNotFoundError):
                vectors = None
            if vectors is None or vectors.shape != (rows, self._stored):
                message = f"{path} is missing or damaged: embed into another folder"
                raise UserError("embeddings.shard", message, path)
            yield vectors if self._cut in (None, self._stored) else cut(vectors, self._cut)

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

    from tf_dpce.search.embedding.facts import image_schema

    texts = pa.schema([("id", pa.string()), ("text", pa.string())])
    return image_schema() if kind == IMAGES else texts


def joined_columns(kind: str, columns: Iterable[str], records: pa.Table | None = None) -> list[str]:
    """Returns those columns that came from a table of the user's, and that `records` lack."""
    others = {*record_schema(kind).names, *(records.column_names if records else ())}
    return [name for name in columns if name not in others]


def read_records(path: Path, kind: str) -> pa.Table:
    """Reads the records of embeddings of a kind, with the types of their columns."""
    import pyarrow.json

    schema = record_schema(kind)
    if not path.stat().st_size:
        return schema.empty_table()
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    return pyarrow.json.read_json(path, parse_options=options)
