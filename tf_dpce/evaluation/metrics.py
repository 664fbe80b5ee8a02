"""Recall, median and mean rank, and average precision, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.ranks import best_ranks, hit_ranks

RECALLS = (1, 5, 10)
# Standard deviations of a normal distribution that 95 % of it lie within.
_Z = 1.96
# From so many validation images on the mean rank distinguishes epochs: after 33 training images,
# one in ten of the epochs that 12 images chose so did not find the training images themselves, and
# one in forty of those that 20 chose. The last epoch always did.
RANK_IMAGES = 20


def retrieval_metrics(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    image_ids: np.ndarray,
    text_ids: np.ndarray,
) -> dict[str, Any]:
    """Measures the retrieval of captions with images and of images with captions.

    An item is right if it has the id of the query. The id stands for the image, or for the person
    if several images show the same person. Items of the other kind are ranked by descending inner
    product; the rank of a query is the rank of its best right item. A wrong item with an equal
    score ranks before the right one, so a model whose embeddings are all equal has a recall of 0.

    For two images and four captions, `image_ids = [0, 1]` and `text_ids = [0, 0, 1, 1]` mean that
    the first two captions describe the first image.

    Args:
        image_embeddings: float `[N, D]`, of unit length for cosine similarity.
        text_embeddings: float `[M, D]`.
        image_ids: `[N]`, integers or strings.
        text_ids: `[M]`, of the same kind.

    Returns:
        `{"image_to_text": {...}, "text_to_image": {...}, "rsum": float}`; each direction has
        `r1`, `r5` and `r10` (the percentage of queries with a right item among the first 1, 5 or
        10), `medr` (the median rank, rounded down) and `meanr` (the mean rank), where the best
        rank is 1; `rsum` is the sum of the six recalls.

    Raises:
        ValueError: the shapes do not match.
        UserError: an embedding is not finite, or a query has no right item.

    Example:
        >>> vectors = np.eye(3, dtype=np.float32)
        >>> retrieval_metrics(vectors, vectors, np.arange(3), np.arange(3))["rsum"]
        600.0
    """
    images, texts, image_keys, text_keys = _checked(
        image_embeddings, text_embeddings, image_ids, text_ids
    )
    _check_answerable("images have no caption", image_keys, text_keys)
    _check_answerable("captions have no image", text_keys, image_keys)
    image_ranks, text_ranks = best_ranks(images, texts, image_keys, text_keys)
    directions = {"image_to_text": _summary(image_ranks), "text_to_image": _summary(text_ranks)}
    return {**directions, "rsum": _rsum(*directions.values())}


def identity_metrics(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    image_ids: np.ndarray,
    text_ids: np.ndarray,
) -> dict[str, Any]:
    """Measures the retrieval of all images of a person with a caption.

    Right items and ties are those of `retrieval_metrics`, except that an image may have no caption;
    it is then wrong for every query.

    Args:
        image_embeddings: float `[N, D]`, of unit length for cosine similarity.
        text_embeddings: float `[M, D]`.
        image_ids: `[N]`, integers or strings: the person of each image.
        text_ids: `[M]`, of the same kind: the person of each caption.

    Returns:
        `{"image_to_text": None, "text_to_image": {...}, "rsum": float}`. The direction has the
        values of `retrieval_metrics` and two means over all queries, in percent. `map` is the mean
        average precision: the precision at the h-th right item, at rank r, is h / r. (The authors'
        code uses the mean of h / r and (h - 1) / (r - 1), trapezoids, which is never higher.)
        `minp` is the mean inverse negative penalty: the number of right items, divided by the rank
        of the last one. `rsum` is the sum of the three recalls, at most 300.

    Raises:
        ValueError: the shapes do not match.
        UserError: an embedding is not finite, or a query has no right item.

    Example:
        >>> vectors = np.eye(3, dtype=np.float32)
        >>> identity_metrics(vectors, vectors, np.arange(3), np.arange(3))["rsum"]
        300.0
    """
    images, texts, image_keys, text_keys = _checked(
        image_embeddings, text_embeddings, image_ids, text_ids
    )
    _check_answerable("captions have no image", text_keys, image_keys)
    found = [
        (ranks[0], np.mean(np.arange(1, len(ranks) + 1) / ranks), len(ranks) / ranks[-1])
        for ranks in hit_ranks(texts, images, text_keys, image_keys)
    ]
    best, average_precision, inverse_penalty = np.transpose(found)
    direction = {
        **_summary(best),
        "map": 100 * float(np.mean(average_precision)),
        "minp": 100 * float(np.mean(inverse_penalty)),
    }
    return {"image_to_text": None, "text_to_image": direction, "rsum": _rsum(direction)}


def metric_logs(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the results of `retrieval_metrics` as flat logs of a validation.

    `val_meanr` is the mean of the mean ranks of both directions.

    Example:
        >>> vectors = np.eye(3, dtype=np.float32)
        >>> metrics = retrieval_metrics(vectors, vectors, np.arange(3), np.arange(3))
        >>> metric_logs(metrics)["val_i2t_r1"]
        100.0
    """
    logs = {"val_rsum": metrics["rsum"]}
    for short, direction in (("i2t", "image_to_text"), ("t2i", "text_to_image")):
        logs |= {f"val_{short}_{name}": value for name, value in metrics[direction].items()}
    return logs | {"val_meanr": (logs["val_i2t_meanr"] + logs["val_t2i_meanr"]) / 2}


def wilson_interval(percent: float, queries: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a recall, in percent (Wilson 1927).

    Args:
        percent: the recall.
        queries: number of independent queries that it was measured with.

    Example:
        >>> [round(end) for end in wilson_interval(75.0, 4)]
        [30, 95]
    """
    share, z2 = percent / 100, _Z**2 / queries
    middle = share + z2 / 2
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    low, high = (100 * (middle + sign * half) / (1 + z2) for sign in (-1, 1))
    return max(0.0, low), min(100.0, high)


def _summary(ranks: np.ndarray) -> dict[str, float]:
    recalls = {f"r{k}": 100.0 * int(np.sum(ranks <= k)) / len(ranks) for k in RECALLS}
    return {**recalls, "medr": float(np.median(ranks) // 1), "meanr": float(np.mean(ranks))}


def _rsum(*directions: Mapping[str, float]) -> float:
    return float(sum(direction[f"r{k}"] for direction in directions for k in RECALLS))


def _checked(
    images: np.ndarray, texts: np.ndarray, image_ids: np.ndarray, text_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns images, texts and their ids as small integers, if all belong together."""
    images, texts, image_ids, text_ids = map(np.asarray, (images, texts, image_ids, text_ids))
    received = (
        f"Received: image_embeddings {images.shape}, text_embeddings {texts.shape}, "
        f"image_ids {image_ids.shape}, text_ids {text_ids.shape}"
    )
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ValueError(f"Embeddings are [N, D] and [M, D] with one D. {received}")
    if image_ids.shape != images.shape[:1] or text_ids.shape != texts.shape[:1]:
        raise ValueError(f"There is one id for each embedding. {received}")
    if not len(images) or not len(texts):
        raise ValueError(f"There is at least one image and one caption. {received}")
    _check_finite(images, "image_embeddings")
    _check_finite(texts, "text_embeddings")
    return images, texts, *_shared_keys(image_ids, text_ids)


def _check_finite(vectors: np.ndarray, name: str) -> None:
    # A sum is finite only if all its terms are; this needs no mask as large as the vectors.
    bad = int(np.sum(~np.isfinite(np.sum(vectors, axis=1, dtype=np.float64))))
    if bad:
        raise UserError(
            "evaluation.not_finite",
            f"{bad} of {len(vectors)} {name} are not finite: training has diverged; "
            "lower the learning rate",
        )


def _shared_keys(image_ids: np.ndarray, text_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns small integers that are equal if and only if the ids are."""
    if np.issubdtype(image_ids.dtype, np.number) != np.issubdtype(text_ids.dtype, np.number):
        kinds = f"image_ids {image_ids.dtype}, text_ids {text_ids.dtype}"
        raise ValueError(f"Ids are of one kind, integers or strings. Received: {kinds}")
    _, keys = np.unique(np.concatenate([image_ids, text_ids]), return_inverse=True)
    return keys[: len(image_ids)], keys[len(image_ids) :]


def _check_answerable(complaint: str, keys: np.ndarray, others: np.ndarray) -> None:
    lonely = int(np.sum(~np.isin(keys, others)))
    if lonely:
        message = f"{lonely} of {len(keys)} {complaint} of the same id: check the ids"
        raise UserError("evaluation.no_match", message)
