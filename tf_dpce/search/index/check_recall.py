"""How much an approximate index misses, and how fast it is, asked with queries of a user's kind.

Captions lie elsewhere than images, so that recall with images as queries says little.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration import QUERY_KIND
from tf_dpce.search.embedding.store import StoredEmbeddings
from tf_dpce.search.index.build import read_stores
from tf_dpce.search.index.factories import efforts, fill_index, learnt_index, usual_effort
from tf_dpce.search.index.folder import FolderIndex
from tf_dpce.search.index.state import State
from tf_dpce.search.interface import check_answerable

TOP = 10
EXACT = "exact"

_ENOUGH = 0.99  # recall of a setting to take
_CLEARLY = 1.5  # times that another setting is faster before it is worth a change
_ASKED = 256  # queries
_TIMED = 32  # queries that are timed, one at a time
_LEAST = 25_000  # items from which k-means has what it needs for 4 sqrt(N) lists
_ROUNDING = 1e-5  # of sums in another order


@dataclass(frozen=True)
class Setting:
    """What a search costs and finds.

    Attributes:
        factory: FAISS's description, or "exact".
        effort: lists of an inverted file that a query searches, or `efSearch` of HNSW; else None.
        recall: part of the exact search's first ten that it finds.
        seconds: time of a query, the median.
        is_in_force: whether the index is searched so.
    """

    factory: str
    effort: int | None
    recall: float
    seconds: float
    is_in_force: bool = False


def check_recall(index: FolderIndex, folder: Path, kind: str) -> list[Setting]:
    """Measures settings of an index, and of others over its embeddings.

    Args:
        index: the index.
        folder: a folder that `embed` finished with the same model, of queries.
        kind: what is searched, "images" or "texts"; queries of the other kind are asked.

    Returns:
        The settings: exact search, those of the index, those of other factories that can learn
        from so many items.

    Raises:
        UserError: the index does not hold `kind`, or `folder` no queries of its model.
    """
    check_answerable(index.counts, kind, TOP)
    state = index.state(kind)
    queries = state.prepared(_queries(index, folder, QUERY_KIND[kind]), is_normalised=True)
    exact = _replaced(state, [None] * len(state.segments))
    best = _scores(exact, queries, None)
    near = _approximate(state)
    settings = [Setting(EXACT, None, 1.0, _seconds(exact, queries, None), near is None)]
    own = None
    if near is not None:
        own = index.manifest.factory or f"IVF{near.nlist},SQ8"
        in_force = state.entry.effort or usual_effort(near)
        settings += _measured(state, own, queries, best, in_force)
    rows = max(segment.files.rows for segment in state.segments)
    for other in _others(rows, index.dimension, bool(state.entry.queries)):
        if other != own:
            learnt = _replaced(state, _learnt(state, other))
            settings += _measured(learnt, other, queries, best)
    return settings


def recommended(settings: Sequence[Setting]) -> Setting:
    """Returns the fastest setting that finds enough; the one in force unless it is clearly slower.

    Args:
        settings: result of `check_recall`.
    """
    enough = [setting for setting in settings if setting.recall >= _ENOUGH]
    fastest = min(enough, key=lambda setting: setting.seconds)
    in_force = [setting for setting in enough if setting.is_in_force]
    if in_force and in_force[0].seconds <= _CLEARLY * fastest.seconds:
        return in_force[0]
    return fastest


def _queries(index: FolderIndex, folder: Path, kind: str) -> np.ndarray:
    queries = StoredEmbeddings(read_stores([folder], index), kind, index.dimension)
    if not queries.rows:
        message = f"{folder} holds no {kind} to ask with: embed some into it"
        raise UserError("index.querybank", message, folder)
    return queries.sample(_ASKED)


def _others(rows: int, dimension: int, querybank: bool) -> Iterator[str]:
    if rows >= _LEAST:
        lists = f"IVF{round(4 * rows**0.5)}"
        yield f"{lists},SQ8"
        if dimension % 4 == 0 and not querybank:
            yield f"{lists},PQ{dimension // 4}"


def _approximate(state: State) -> Any:
    """Returns an approximate index that a segment has, or None."""
    return next(filter(None, (part.files.approximate for part in state.segments)), None)


def _learnt(state: State, factory: str) -> list[Any]:
    """Returns an approximate index of each large segment."""
    indices = []
    for segment in state.segments:
        flat, index = segment.files.flat, None
        if flat.ntotal >= _LEAST:
            index = learnt_index(factory, flat)
            fill_index(index, flat)
        indices.append(index)
    return indices


def _replaced(state: State, approximate: Sequence[Any]) -> State:
    """Returns the same items with other approximate indices."""
    segments = []
    for segment, index in zip(state.segments, approximate, strict=True):
        files = copy.copy(segment.files)
        files.approximate = index
        segments.append(replace(segment, files=files))
    return replace(state, segments=tuple(segments))


def _measured(
    state: State, factory: str, queries: np.ndarray, best: np.ndarray, in_force: int | None = None
) -> Iterator[Setting]:
    """Yields settings of more and more effort."""
    index = _approximate(state)
    for effort in efforts(index, in_force or usual_effort(index)):
        least = best[:, -1:] - _ROUNDING
        recall = float((_scores(state, queries, effort) >= least).mean())
        seconds = _seconds(state, queries, effort)
        yield Setting(factory, effort, recall, seconds, effort == in_force)


def _scores(state: State, queries: np.ndarray, effort: int | None) -> np.ndarray:
    """Returns the best scores of each query, float32 `[Q, 10]` or fewer."""
    found = [part.search(queries, TOP, None, effort)[0] for part in state.segments]
    return -np.sort(-np.hstack(found), axis=1)[:, :TOP]


def _seconds(state: State, queries: np.ndarray, effort: int | None) -> float:
    times = []
    for row in range(min(_TIMED, len(queries))):
        start = time.perf_counter()
        _scores(state, queries[row : row + 1], effort)
        times.append(time.perf_counter() - start)
    return float(np.median(times))
