"""Recall, median rank and mean rank in both directions. NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_dpce.errors import UserError

RECALLS = (1, 5, 10)

# Scores in a block of queries against the whole corpus: 32 MiB of float64.
_BLOCK_SCORES = 2**22
# Two equal vectors may score apart by rounding alone, since a matrix product adds up in another
# order at its edges. This is far above that noise, and far below float32 vectors' own.
_TIE = 1e-9


def retrieval_metrics(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    image_ids: np.ndarray,
    text_ids: np.ndarray,
) -> dict[str, Any]:
    """Scores retrieval of sentences by pictures and of pictures by sentences.

    A hit is an equal id: the picture's, or the person's where several pictures show one person.
    The rank of a query is that of its best hit among all items of the other kind, by falling
    inner product. A wrong item with an equal score ranks before the right one, so that a model
    whose vectors all collapsed into one scores 0.

    With two pictures and four sentences, `text_ids = [0, 0, 1, 1]` says that the first two
    sentences describe the first picture.

    Args:
        image_embeddings: float `[N, D]`, of unit length for cosine similarity.
        text_embeddings: float `[M, D]`.
        image_ids: `[N]`, integers or strings.
        text_ids: `[M]`, of the same kind.

    Returns:
        `{"image_to_text": {...}, "text_to_image": {...}, "rsum": float}`; each direction has
        `r1`, `r5` and `r10` (percent, 0 to 100, of queries with a hit among so many), `medr`
        (the floor of the median rank) and `meanr` (the mean rank), where the best rank is 1;
        `rsum` is the sum of the six recalls.

    Raises:
        ValueError: shapes that do not belong together.
        UserError: a vector that is not finite, or a query with nothing right to find.

    Example:
        >>> vectors = np.eye(3, dtype=np.float32)
        >>> retrieval_metrics(vectors, vectors, np.arange(3), np.arange(3))["rsum"]
        600.0
    """
    images, texts = np.asarray(image_embeddings), np.asarray(text_embeddings)
    image_ids, text_ids = np.asarray(image_ids), np.asarray(text_ids)
    _check_shapes(images, texts, image_ids, text_ids)
    _check_finite(images, "image_embeddings")
    _check_finite(texts, "text_embeddings")
    image_keys, text_keys = _shared_keys(image_ids, text_ids)
    _check_answerable(image_keys, text_keys)
    directions = {
        "image_to_text": _summary(best_ranks(images, texts, image_keys, text_keys)),
        "text_to_image": _summary(best_ranks(texts, images, text_keys, image_keys)),
    }
    recalls = [d[f"r{k}"] for d in directions.values() for k in RECALLS]
    return {**directions, "rsum": float(sum(recalls))}


def best_ranks(
    queries: np.ndarray, corpus: np.ndarray, query_ids: np.ndarray, corpus_ids: np.ndarray
) -> np.ndarray:
    """Returns the 0-based rank of each query's best hit, int64 `[Q]`.

    Memory grows with Q + N, never with their product: queries go in blocks.

    Args:
        queries: finite float `[Q, D]`.
        corpus: finite float `[N, D]`.
        query_ids: `[Q]`; each is among `corpus_ids`.
        corpus_ids: `[N]`.
    """
    columns = np.ascontiguousarray(corpus.T, dtype=np.float64)
    longest = np.sqrt(np.max(np.sum(columns**2, axis=0)))
    rows = max(1, _BLOCK_SCORES // len(corpus))
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows].astype(np.float64)
        scores = block @ columns
        right = query_ids[start : start + rows, np.newaxis] == corpus_ids
        best = np.max(scores, axis=1, where=right, initial=-np.inf, keepdims=True)
        tie = _TIE * longest * np.linalg.norm(block, axis=1, keepdims=True)
        ranks[start : start + rows] = np.sum((scores >= best - tie) & ~right, axis=1)
    return ranks


def _summary(ranks: np.ndarray) -> dict[str, float]:
    recalls = {f"r{k}": 100.0 * int(np.sum(ranks < k)) / len(ranks) for k in RECALLS}
    median, mean = np.floor(np.median(ranks)) + 1, np.mean(ranks) + 1
    return {**recalls, "medr": float(median), "meanr": float(mean)}


def _check_shapes(
    images: np.ndarray, texts: np.ndarray, image_ids: np.ndarray, text_ids: np.ndarray
) -> None:
    received = (
        f"Received: image_embeddings {images.shape}, text_embeddings {texts.shape}, "
        f"image_ids {image_ids.shape}, text_ids {text_ids.shape}"
    )
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ValueError(f"Embeddings are [N, D] and [M, D] with one D. {received}")
    if image_ids.shape != images.shape[:1] or text_ids.shape != texts.shape[:1]:
        raise ValueError(f"There is one id for each embedding. {received}")
    if not len(images) or not len(texts):
        raise ValueError(f"There is at least one picture and one sentence. {received}")


def _check_finite(vectors: np.ndarray, name: str) -> None:
    # A sum is finite only if all its terms are; it spares a mask as large as the vectors.
    bad = int(np.sum(~np.isfinite(np.sum(vectors, axis=1, dtype=np.float64))))
    if bad:
        raise UserError(
            f"{bad} of {len(vectors)} {name} are not finite: training has diverged; "
            "lower the learning rate"
        )


def _shared_keys(image_ids: np.ndarray, text_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns small integers that are equal where ids are."""
    numeric = {np.issubdtype(ids.dtype, np.number) for ids in (image_ids, text_ids)}
    if len(numeric) > 1:
        raise ValueError(
            "Ids are of one kind, integers or strings. "
            f"Received: image_ids {image_ids.dtype}, text_ids {text_ids.dtype}"
        )
    _, keys = np.unique(np.concatenate([image_ids, text_ids]), return_inverse=True)
    return keys[: len(image_ids)], keys[len(image_ids) :]


def _check_answerable(image_keys: np.ndarray, text_keys: np.ndarray) -> None:
    for name, keys, others in (
        ("pictures have no sentence", image_keys, text_keys),
        ("sentences have no picture", text_keys, image_keys),
    ):
        lonely = int(np.sum(~np.isin(keys, others)))
        if lonely:
            raise UserError(f"{lonely} of {len(keys)} {name} of the same id: check the ids")
