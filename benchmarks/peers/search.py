"""A query through our index, beside bare FAISS and hnswlib."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pairs import CORES, Pair, Side, Work
from tf_dpce.search.index.folder import FolderIndex

_SIZES = (30_000, 1_000_000)
_BATCHES = (1, 64)
_TOP, _ASKED, _QUERIES = 10, 500, 256
_DEGREE, _BUILD_EFFORT = 16, 100  # of hnswlib's graph


def pairs(images: Path | None) -> list[Pair]:
    """Returns a pair for each size of an index and of a batch of queries; embeddings are drawn."""
    return [_pair(size, batch) for size in _SIZES for batch in _BATCHES]


def _pair(size: int, batch: int) -> Pair:
    given = {"size": size, "batch": batch}
    peers = [
        Side("FAISS, bare", f"{__name__}:bare_faiss", given, goal=0.95),
        Side("ours, with ten records a query", f"{__name__}:with_records", given),
    ]
    # A graph of a million embeddings takes a quarter of an hour to build on two cores.
    if size == min(_SIZES):
        peers.append(Side("hnswlib, bare", f"{__name__}:hnsw", given, ("hnswlib",)))
    ours = Side("ours", f"{__name__}:ours", given)
    case = f"{size:,} images, {batch} at a time"
    return Pair(case, "queries a second", ours, tuple(peers), 0.01, rounds=9, warm_up=3)


def ours(folder: Path, size: int, batch: int) -> Work:
    """Opens an index of drawn embeddings, built by default."""
    from benchmarks.search import build, drawn

    found = drawn(0)
    np.save(folder / "queries.npy", found.sentences)
    build(folder / str(size), found.images, size)
    return _index(folder, size, batch, lambda index, q: index.search("images", q, _TOP, of="texts"))


def with_records(folder: Path, size: int, batch: int) -> Work:
    """Opens the same, with what the index knows of each hit."""
    return _index(folder, size, batch, _hits)


def _index(folder: Path, size: int, batch: int, search: Callable[[FolderIndex, Any], Any]) -> Work:
    index, queries = FolderIndex(folder / str(size)), np.load(folder / "queries.npy")
    hits = [
        [int(hit.record["id"][7:14]) for hit in each] for each in _hits(index, queries[:_ASKED])
    ]
    call = _rounds(partial(search, index), queries, batch)
    return Work(call, _recall(folder, size, np.array(hits)), _QUERIES)


def _hits(index: FolderIndex, queries: np.ndarray) -> list[list[Any]]:
    return [list(ranking) for ranking in index.search("images", queries, _TOP, of="texts")]


def bare_faiss(folder: Path, size: int, batch: int) -> Work:
    """Opens FAISS's own search of the same files."""
    from benchmarks.search import bare_search

    search = bare_search(folder / str(size))
    queries = np.load(folder / "queries.npy")
    recall = _recall(folder, size, search(queries[:_ASKED], _TOP)[1])
    return Work(_rounds(lambda q: search(q, _TOP), queries, batch), recall, _QUERIES)


def hnsw(folder: Path, size: int, batch: int) -> Work:
    """Opens a graph over the same embeddings, at the least effort that finds as much."""
    import hnswlib

    from benchmarks.search import faiss_indices

    flat = faiss_indices(folder / str(size))[0]
    queries = np.load(folder / "queries.npy")
    graph = hnswlib.Index("ip", flat.d)
    graph.init_index(flat.ntotal, _BUILD_EFFORT, _DEGREE)
    graph.set_num_threads(CORES)
    graph.add_items(flat.reconstruct_n(0, flat.ntotal))
    for effort in 2 ** np.arange(4, 12):
        graph.set_ef(int(effort))
        recall = _recall(folder, size, graph.knn_query(queries[:_ASKED], _TOP)[0])
        if recall >= 0.99:
            break
    return Work(_rounds(lambda q: graph.knn_query(q, _TOP), queries, batch), recall, _QUERIES)


def _rounds(search: Callable[[np.ndarray], Any], queries: np.ndarray, batch: int) -> Callable:
    """Returns a call that asks as many queries, others every time, so many at a time."""
    draw = np.random.default_rng(0)

    def call() -> None:
        for start in draw.integers(len(queries) - batch, size=_QUERIES // batch):
            search(queries[start : start + batch])

    return call


def _recall(folder: Path, size: int, found: np.ndarray) -> float:
    """Returns which part of the ten nearest images, exactly, are among those that were found."""
    from benchmarks.search import faiss_indices

    queries = np.load(folder / "queries.npy")[:_ASKED]
    _, exact = faiss_indices(folder / str(size))[0].search(queries, _TOP)
    hits = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    return sum(hits) / exact.size
