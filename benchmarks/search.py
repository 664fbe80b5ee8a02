"""What it costs to build, ask and change an index, up to a million images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa

from benchmarks.memory import peak_mib
from benchmarks.timing import Row, interleave, row
from tf_dpce.config import Config
from tf_dpce.preprocessing.status import OK
from tf_dpce.search.embedding.facts import image_schema
from tf_dpce.search.embedding.store import KINDS, StoredEmbeddings, StoreManifest
from tf_dpce.search.index.folder import FolderIndex
from tf_dpce.search.index.manifest import IndexManifest
from tf_dpce.search.index.writer import writing
from tf_dpce.search.searcher import Searcher

DIMENSION = 256
_NOISE = 0.5  # length of what is added to a unit vector: copies have a cosine of 0.9 with it
_PIECE = 1 << 15  # images that are made at a time
_RERANKED = 100  # candidates that exact scores decide among, as the index has it
_WARM_UP = 10  # rounds, after which the index holds the records in memory
_FILTERS = {"half": "width >= 500", "1 of 100": "folder = '07'"}


class Embeddings(NamedTuple):
    """Unit vectors of images, float32 `[B, 256]`, which are multiplied, and of sentences."""

    images: np.ndarray
    sentences: np.ndarray


class StoredSentences:
    """An encoder that finds embeddings by the number of a sentence: a model costs no time."""

    dimension = DIMENSION

    def __init__(self, sentences: np.ndarray) -> None:
        self._sentences = sentences

    def encode_with_status(self, kind: str, items: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings, and that all are well."""
        return self._sentences[list(map(int, items))], np.full(len(items), OK)

    def count_inferred(self, items: list[str]) -> np.ndarray:
        """Returns that no word was inferred."""
        return np.zeros(len(items), np.int32)


def measure(
    config: Config,
    *,
    embeddings: Path | None = None,
    sizes: tuple[int, ...] = (100_000, 1_000_000),
    rounds: int = 50,
    asked: int = 500,
) -> list[Row]:
    """Times the default index of few and of many images; `peers.search` compares it with FAISS.

    Args:
        config: its seed is taken.
        embeddings: folder that `embed` wrote of images and sentences; they are cut to 256 numbers
            by a fixed projection, and images multiplied by noise. None draws both.
        sizes: numbers of images; each makes an index.
        rounds: number of rounds.
        asked: number of sentences by which recall is measured.
    """
    found = drawn(config.seed) if embeddings is None else _stored(embeddings, config.seed)
    rows: list[Row] = []
    for size in sizes:
        with TemporaryDirectory() as parent:
            folder, what = Path(parent, "index"), f"{size:,} images"
            began = perf_counter()
            build(folder, found.images, size)
            rows.append(row(f"{what}: build", "s", [perf_counter() - began]))
            rows.append(row(f"{what}: memory of the process, peak", "MiB", [peak_mib()]))
            stored = sum(path.stat().st_size for path in folder.iterdir())
            rows.append(row(f"{what}: disk", "bytes an image", [stored / size]))
            rows.append(_first(folder, what, found.sentences))
            rows += _ask(folder, what, found.sentences, rounds)
            recall = _recall(folder, found.sentences[:asked])
            rows.append(row(f"{what}: recall@10", "%", [100 * recall]))
            rows += _change(folder, what, found.images)
            rows.append(row(f"{what}: memory of the process, peak", "MiB", [peak_mib()]))
    return rows


def image_batches(images: np.ndarray, count: int) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yields records and embeddings of so many images, the same ones every time.

    Args:
        images: float32 `[B, D]`, unit vectors.
        count: number of images; each is one of `images` with noise.
    """
    for start in range(0, count, _PIECE):
        numbers = np.arange(start, min(start + _PIECE, count))
        noise = np.random.default_rng(start).standard_normal((len(numbers), DIMENSION), np.float32)
        vectors = images[numbers % len(images)] + noise * np.float32(_NOISE / DIMENSION**0.5)
        yield _records(numbers), _unit(vectors)


def build(folder: Path, images: np.ndarray, count: int) -> None:
    """Does what the verb `index` does, without files of embeddings."""
    folder.mkdir()
    with writing(folder, IndexManifest("0" * 64, DIMENSION)) as writer:
        writer.add("images", image_batches(images, count), whole=True)
        writer.commit()


def _first(folder: Path, what: str, sentences: np.ndarray) -> Row:
    """Times the first query of a process, which opens the index."""
    index = FolderIndex(folder)
    began = perf_counter()
    index.search("images", sentences[:1], 10, of="texts")
    return row(f"{what}: the first query", "ms", [1000 * (perf_counter() - began)])


def _ask(folder: Path, what: str, sentences: np.ndarray, rounds: int) -> Iterator[Row]:
    """Times queries with filters, and what a page asks: words that are not known, 24 images."""
    searcher = Searcher(folder, StoredSentences(sentences))
    turns = iter(np.random.default_rng(1).integers(0, len(sentences), 10**5))

    def ask(where: str | None = None) -> Callable[[], object]:
        return lambda: searcher.by_text(str(next(turns)), 24, where=where)

    calls = {
        f"a page's 24, filter that passes {part}": ask(text) for part, text in _FILTERS.items()
    }
    calls["a page's 24"] = ask()
    for call, seconds in interleave(calls, rounds, _WARM_UP).items():
        yield row(f"{what}: {call}", "ms", 1000 * seconds)


def _change(folder: Path, what: str, images: np.ndarray) -> Iterator[Row]:
    """Times adding 1,000 images, replacing them and deleting them."""
    index = FolderIndex(folder)
    records, vectors = next(image_batches(images[::-1], 1_000))
    ids = [f"new {id_}" for id_ in records["id"].to_pylist()]
    records = records.set_column(0, "id", pa.array(ids))
    for name, change in {
        "adding 1,000": lambda: index.add("images", records, vectors),
        "replacing 1,000": lambda: index.add("images", records, vectors),
        "deleting 1,000": lambda: index.delete("images", ids),
    }.items():
        began = perf_counter()
        change()
        yield row(f"{what}: {name}", "s", [perf_counter() - began])


def bare_search(folder: Path) -> Callable[[np.ndarray, int], Any]:
    """Returns FAISS's own search of an index: of all, or of candidates and their exact scores."""
    flat, near = faiss_indices(folder)
    if near is None:
        return flat.search
    refined = faiss.IndexRefine(near, flat)

    def search(queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        refined.k_factor = _RERANKED / top
        return refined.search(queries, top)

    return search


def faiss_indices(folder: Path) -> list[Any]:
    """Opens the exact and the approximate FAISS index of an index that has one segment."""
    (entry,) = FolderIndex(folder).manifest.kinds["images"].segments
    return [
        file and faiss.read_index(str(folder / file.name), faiss.IO_FLAG_MMAP_IFC)
        for file in (entry.flat, entry.approximate)
    ]


def _recall(folder: Path, sentences: np.ndarray) -> float:
    """Returns which part of the ten nearest images, exactly, is among the ten that are found."""
    _, exact = faiss_indices(folder)[0].search(sentences, 10)
    found = FolderIndex(folder).search("images", sentences, 10, of="texts")
    shared = [
        len({hit.record["id"] for hit in hits} & set(map(_id, numbers)))
        for hits, numbers in zip(found, exact.tolist(), strict=True)
    ]
    return sum(shared) / (10 * len(shared))


def _records(numbers: np.ndarray) -> pa.Table:
    """Returns what is known of images, as long as that of real ones."""
    ids = [_id(number) for number in numbers.tolist()]
    moments = [datetime(2000, 1, 1) + timedelta(minutes=number) for number in numbers.tolist()]
    columns = {
        "id": ids,
        "path": [f"/archive/of/images/{id_}" for id_ in ids],
        "folder": [id_[:2] for id_ in ids],
        "name": [id_[3:] for id_ in ids],
        "width": 300 + numbers % 400,
        "height": 300 + numbers % 300,
        "bytes": 50_000 + numbers % 99_991,
        "modified": moments,
        "taken": moments,
        "content": [hashlib.sha256(id_.encode()).hexdigest() for id_ in ids],
    }
    return pa.table(columns, schema=image_schema())


def _id(number: int) -> str:
    return f"{number % 100:02d}/IMG_{number:07d}.jpg"


def _stored(folder: Path, seed: int) -> Embeddings:
    """Returns real embeddings, projected to 256 numbers."""
    stores = {folder: StoreManifest.load(folder)}
    whole = [np.concatenate([*StoredEmbeddings(stores, kind).arrays()]) for kind in KINDS]
    drawn = np.random.default_rng(seed).standard_normal((whole[0].shape[1], DIMENSION))
    projection = np.linalg.qr(drawn)[0].astype(np.float32)
    return Embeddings(*(_unit(vectors @ projection) for vectors in whole))


def drawn(seed: int) -> Embeddings:
    """Returns clusters of images, and sentences that lie beside them, as another kind does."""
    draw = np.random.default_rng(seed)
    centres, images, sentences, gap = (
        draw.standard_normal((size, DIMENSION), np.float32) for size in (200, 5_000, 5_000, 1)
    )
    centres = centres[np.arange(5_000) % 200]
    return Embeddings(_unit(centres + images), _unit(centres + sentences + gap))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
