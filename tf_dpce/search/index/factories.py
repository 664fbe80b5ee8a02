"""FAISS indices: which one for how many items, how they learn, and what a query asks of them."""

from __future__ import annotations

import re
from typing import Any

import faiss
import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.logging import progress, tracked

FLAT = "SQfp16"  # a cosine of float16 numbers is off by 2**-11 at most
_EXACT = ("Flat", FLAT)  # such an index is the flat one itself: none is needed beside it
LARGE = 200_000  # items from which comparing a query with each of them takes too long

# The k-means of FAISS warns below 39, and more than 256 change nothing.
_SAMPLES_PER_CENTROID = 64
_CODEBOOK = 256  # centroids of one sub-quantiser of a product quantiser
_SAMPLES = 256 * _CODEBOOK
_SEED = 0
_BLOCK = 1 << 16  # rows that are in memory as float32 at a time


def flat_factory(factory: str | None) -> str:
    """Returns the factory of the flat index beside, or instead of, an index of this factory."""
    return factory if factory in _EXACT else FLAT


def approximate_factory(factory: str | None, rows: int) -> str | None:
    """Returns the factory of the approximate index of so many rows, or None if it has none."""
    if factory is None and rows >= LARGE:
        return f"IVF{round(4 * rows**0.5)},SQ8"
    return None if factory in _EXACT else factory


def check_factory(factory: str | None, dimension: int, querybank: bool) -> None:
    """Makes sure that FAISS knows a factory, before any work.

    Raises:
        UserError: it does not, or the factory does not fit the dimension.
    """
    if factory is None:
        return
    if re.search(r"(?<!\d)0+(?!\d)", factory):
        # FAISS would end the process over HNSW0 or PQ8x0.
        raise UserError("index.factory", f"no index {factory!r}: a number in it is 0")
    new_index(factory, dimension + querybank, querybank)


def new_index(factory: str, dimension: int, querybank: bool = False) -> Any:
    """Returns an empty FAISS index of inner products.

    Raises:
        UserError: there is no such index of this dimension.
    """
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise _refusal(factory, dimension, querybank, error) from None
    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    # HNSW with a product quantiser compares by distances, and an `IDMap` numbers its own rows.
    if index.metric_type != faiss.METRIC_INNER_PRODUCT or isinstance(inner, faiss.IndexIDMap):
        message = f"no index {factory!r}: it has distances, or its own numbers: take another"
        raise UserError("index.factory", message)
    return index


def learnt_index(factory: str, flat: Any, querybank: bool = False) -> Any:
    """Returns an empty index that has learnt from the embeddings of a flat one.

    FAISS learns centroids and codebooks from a sample drawn with a fixed seed. An inverted file is
    set to search the square root of its number of lists.

    Raises:
        UserError: there are too few embeddings to learn from.
    """
    index = new_index(factory, flat.d, querybank)
    rotation = re.search(r"OPQ\d+(?:_(\d+))?", factory)
    if rotation and flat.ntotal < (least := int(rotation[1] or flat.d)):
        # FAISS would write past the end of its memory.
        message = f"no index {factory!r}: OPQ needs at least {least} embeddings to learn from"
        raise UserError("index.too_few", message)
    inverted = faiss.try_extract_index_ivf(index)
    lists = inverted.nlist if inverted else 0
    if not index.is_trained:
        size = min(flat.ntotal, max(_SAMPLES_PER_CENTROID * lists, _SAMPLES))
        draw = np.random.default_rng(_SEED)
        rows = np.sort(draw.choice(flat.ntotal, size, replace=False))
        learning = _silenced(index)
        try:
            with progress(f"learning {factory}", transient=True):
                index.train(flat.reconstruct_batch(rows))
        except RuntimeError as error:
            raise _refusal(factory, flat.d, querybank, error) from None
        del learning
    if inverted:
        inverted.nprobe = max(1, round(lists**0.5))
    return index


def _silenced(index: Any) -> list[Any]:
    """Lets FAISS learn from few embeddings without a warning on the screen of the user.

    Returns:
        What must live until it has learnt.
    """
    learning = []
    while isinstance(index := faiss.downcast_index(index), faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            transform = faiss.downcast_VectorTransform(index.chain.at(number))
            if isinstance(transform, faiss.OPQMatrix):
                learning.append(faiss.ProductQuantizer(transform.d_out, transform.M, 8))
                transform.pq = learning[-1]
        index = index.index
    for part in (*learning, index, getattr(index, "pq", None)):
        if hasattr(part, "cp"):
            part.cp.min_points_per_centroid = 1
    return learning


def fill_index(index: Any, flat: Any) -> None:
    """Puts the embeddings of a flat index into another one, a block at a time."""
    starts = range(0, flat.ntotal, _BLOCK)
    for start in tracked(starts, "blocks of the approximate index", len(starts)):
        index.add(flat.reconstruct_n(start, min(_BLOCK, flat.ntotal - start)))


def search_parameters(index: Any, effort: int | None, selector: Any = None) -> Any:
    """Returns what a query asks of an index, or None if it takes no wishes or none is made.

    Args:
        index: a FAISS index.
        effort: lists that an inverted file searches, or `efSearch` of HNSW; None for the usual.
        selector: of which rows the answer may consist.
    """
    if effort is None and selector is None:
        return None
    index = faiss.downcast_index(index)
    wishes = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexPreTransform):
        inner = search_parameters(index.index, effort, selector)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = search_parameters(index.base_index, effort, selector)
        return inner and faiss.IndexRefineSearchParameters(base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        lists = min(effort or index.nprobe, index.nlist)
        if isinstance(index, faiss.IndexIVFPQ):
            return faiss.IVFPQSearchParameters(nprobe=lists, **wishes)
        return faiss.SearchParametersIVF(nprobe=lists, **wishes)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=effort or index.hnsw.efSearch, **wishes)
    return None


def usual_effort(index: Any) -> int | None:
    """Returns how many lists an inverted file searches, or `efSearch` of HNSW; else None."""
    inverted, index = faiss.try_extract_index_ivf(index), faiss.downcast_index(index)
    if inverted:
        return inverted.nprobe
    return index.hnsw.efSearch if isinstance(index, faiss.IndexHNSW) else None


def efforts(index: Any, in_force: int | None) -> list[int | None]:
    """Returns efforts to choose from, with the one in force: powers of two."""
    if in_force is None:
        return [None]
    inverted = faiss.try_extract_index_ivf(index)
    first, last = (1, inverted.nlist) if inverted else (16, 512)
    powers = {1 << power for power in range(12) if first <= 1 << power <= last}
    return sorted(powers | {in_force})


def _refusal(factory: str, dimension: int, querybank: bool, error: Exception) -> UserError:
    # FAISS's own words, without its C++ signatures.
    reason = re.sub(r"^Error in .* at \S+:\d+: ", "", str(error))
    if querybank:
        reason += f"; one number is the querybank's: OPQM_{dimension - 1} removes it for PQM"
    return UserError("index.factory", f"no index {factory!r} over {dimension} numbers: {reason}")
