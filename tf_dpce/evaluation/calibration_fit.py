"""Fits the calibration of hits on validation pairs, by logistic regression in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration import (
    QUERY_KIND,
    Calibration,
    Direction,
    closeness,
    hit_features,
    sigmoid,
)
from tf_dpce.evaluation.reliability import calibration_error, reliability

# Instances that a fit needs: with 100 the error was up to 16 points on archives five times as
# large, with 200 up to 5. More than the most add little.
LEAST_INSTANCES = 200
MOST_IMAGES = 1_000

RANKS = 10  # hits of a query that a fit learns from
_SAMPLE = 500  # items, and queries, that are stored
# A fit searches among these parts of the pairs, because archives differ in size.
_PARTS = (0.04, 0.04, 0.04, 0.2, 0.2, 0.2, 1.0)
_QUERIES = 2_500  # of a part
_RIDGE = 1.0
_SEED = 0


def fit_calibration(
    images: np.ndarray, texts: np.ndarray, image_ids: np.ndarray, text_ids: np.ndarray
) -> Calibration:
    """Fits a calibration on validation pairs.

    Args:
        images: float `[N, D]`, unit vectors.
        texts: float `[M, D]`, unit vectors.
        image_ids: int `[N]`, the instance of each image: those of the same instance are pairs.
        text_ids: int `[M]`, the instance of each text.

    Raises:
        UserError: fewer than `LEAST_INSTANCES` instances have images and texts.
    """
    instances = np.intersect1d(image_ids, text_ids)
    check_enough(len(instances))
    images, texts = images.astype(np.float32), texts.astype(np.float32)
    pairs = {"images": (images, image_ids), "texts": (texts, text_ids)}
    return Calibration(
        {kind: _fit(*pairs[kind], *pairs[other], instances) for kind, other in QUERY_KIND.items()},
        len(images),
        len(texts),
    )


def check_enough(pairs: int) -> None:
    """Refuses a number of validation instances that is too small for a fit.

    Raises:
        UserError: it is.
    """
    if pairs < LEAST_INSTANCES:
        message = (
            f"{pairs} validation pairs are too few to calibrate probabilities: prepare at least "
            f"{LEAST_INSTANCES}"
        )
        raise UserError("calibration.few", message)


def _fit(
    items: np.ndarray,
    item_ids: np.ndarray,
    queries: np.ndarray,
    query_ids: np.ndarray,
    instances: np.ndarray,
) -> Direction:
    """Fits one direction: each half of the instances is searched, the other is the sample."""
    draw = np.random.default_rng(_SEED)
    halves = np.array_split(draw.permutation(instances), 2)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for searched, others in (halves, halves[::-1]):
        usual = closeness(queries, _one_each(items, item_ids, others))
        popular = closeness(items, _one_each(queries, query_ids, others))
        for part in _PARTS:
            chosen = draw.choice(searched, max(2 * RANKS, round(part * len(searched))), False)
            rows = draw.permutation(np.flatnonzero(np.isin(query_ids, chosen)))[:_QUERIES]
            columns = np.flatnonzero(np.isin(item_ids, chosen))
            cosines = queries[rows] @ items[columns].T
            for hits in best_hits(cosines, query_ids[rows], item_ids[columns]):
                near = popular[columns][hits.rows]
                found.append(
                    (hit_features(hits.cosines, usual[rows], near, len(columns)), hits.right)
                )
    weights = logistic_regression(
        np.concatenate([each.reshape(-1, each.shape[-1]) for each, _ in found]),
        np.concatenate([right.ravel() for _, right in found]),
    )
    first = np.concatenate([sigmoid(each[:, 0] @ weights) for each, _ in found])
    right = np.concatenate([right[:, 0] for _, right in found])
    return Direction(
        _one_each(items, item_ids, instances),
        _one_each(queries, query_ids, instances),
        weights,
        calibration_error(reliability(first, right)),
    )


@dataclass(frozen=True)
class BestHits:
    """The best hits of many queries, best first.

    Attributes:
        rows: int `[Q, K]`, the items.
        cosines: float `[Q, K]`.
        right: bool `[Q, K]`, whether the item belongs to the query.
    """

    rows: np.ndarray
    cosines: np.ndarray
    right: np.ndarray


def best_hits(
    cosines: np.ndarray, query_ids: np.ndarray, item_ids: np.ndarray
) -> Iterator[BestHits]:
    """Yields the best hits of queries twice: with their right items, and with these taken out.

    Args:
        cosines: float `[Q, N]`.
        query_ids: int `[Q]`, the instance of each query.
        item_ids: int `[N]`, the instance of each item.
    """
    right = query_ids[:, None] == item_ids
    count = min(RANKS, cosines.shape[1] - int(right.sum(axis=1).max()))
    for seen in (cosines, np.where(right, -np.inf, cosines)):
        rows = np.argpartition(-seen, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(seen, rows, 1), axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, 1)
        yield BestHits(rows, *(np.take_along_axis(each, rows, 1) for each in (seen, right)))


def logistic_regression(features: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Fits a logistic regression with a small ridge, by Newton's method.

    Args:
        features: float64 `[N, F]`; the first is the constant 1, which is not held small.
        outcomes: bool `[N]`.

    Returns:
        Float64 `[F]`.
    """
    means, scales = features.mean(axis=0), features.std(axis=0)
    means[0], scales[scales == 0] = 0, 1
    scaled = (features - means) / scales
    ridge = np.diag([0.0, *[_RIDGE] * (len(scales) - 1)])

    def loss(weights: np.ndarray) -> float:
        logits = scaled @ weights
        likelihood = np.logaddexp(0, logits).sum() - logits[outcomes].sum()
        return likelihood + weights @ ridge @ weights / 2

    weights, lowest = np.zeros(len(scales)), np.inf
    while (current := loss(weights)) < lowest - 1e-6:
        lowest = current
        chances = sigmoid(scaled @ weights)
        slope = scaled.T @ (chances - outcomes) + ridge @ weights
        curvature = (scaled * (chances * (1 - chances))[:, None]).T @ scaled + ridge
        step = np.linalg.solve(curvature, slope)
        while loss(weights - step) > current and np.abs(step).max() > 1e-9:
            step /= 2
        weights = weights - step
    weights = weights / scales
    weights[0] -= means @ weights
    return weights


def _one_each(vectors: np.ndarray, ids: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Returns an embedding of each instance, the first one; a sample if there are many."""
    _, first = np.unique(ids, return_index=True)
    first = first[np.isin(ids[first], instances)]
    return vectors[np.random.default_rng(_SEED).permutation(first)[:_SAMPLE]]
