"""Fits the calibration of hits on validation pairs, by logistic regression in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

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
    sides = {"images": (images, image_ids), "texts": (texts, text_ids)}
    directions = {
        kind: _fit(Pairs(*sides[kind], *sides[other]), instances)
        for kind, other in QUERY_KIND.items()
    }
    return Calibration(directions, len(images), len(texts))


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


class Pairs(NamedTuple):
    """What is searched, and what it is searched for with.

    Attributes:
        items: float `[N, D]`, unit vectors.
        item_ids: int `[N]`, the instance of each item.
        queries: float `[M, D]`, unit vectors.
        query_ids: int `[M]`, the instance of each query.
    """

    items: np.ndarray
    item_ids: np.ndarray
    queries: np.ndarray
    query_ids: np.ndarray

    def samples(self, instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns an item and a query of each instance; of a sample if there are many."""
        items = _one_each(self.items, self.item_ids, instances)
        return items, _one_each(self.queries, self.query_ids, instances)


def _fit(pairs: Pairs, instances: np.ndarray) -> Direction:
    """Fits one direction: each half of the instances is searched, the other is the sample."""
    draw = np.random.default_rng(_SEED)
    halves = np.array_split(draw.permutation(instances), 2)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for searched, others in (halves, halves[::-1]):
        items, queries = pairs.samples(others)
        usual, popular = closeness(pairs.queries, items), closeness(pairs.items, queries)
        for part in _PARTS:
            chosen = draw.choice(searched, max(2 * RANKS, round(part * len(searched))), False)
            for hits in searched_hits(pairs, chosen, _QUERIES, draw):
                near = popular[hits.rows]
                features = hit_features(hits.cosines, usual[hits.queries], near, hits.corpus)
                found.append((features, hits.right))
    weights = logistic_regression(
        np.concatenate([each.reshape(-1, each.shape[-1]) for each, _ in found]),
        np.concatenate([right.ravel() for _, right in found]),
    )
    first = np.concatenate([sigmoid(each[:, 0] @ weights) for each, _ in found])
    right = np.concatenate([right[:, 0] for _, right in found])
    error = calibration_error(reliability(first, right))
    return Direction(*pairs.samples(instances), weights, error)


@dataclass(frozen=True)
class BestHits:
    """The best hits of many queries, best first.

    Attributes:
        queries: int `[Q]`, the rows of the queries.
        rows: int `[Q, K]`, the rows of the items.
        cosines: float `[Q, K]`.
        right: bool `[Q, K]`, whether the item belongs to the query.
        corpus: number of items that were searched.
    """

    queries: np.ndarray
    rows: np.ndarray
    cosines: np.ndarray
    right: np.ndarray
    corpus: int


def searched_hits(
    pairs: Pairs, chosen: np.ndarray, most: int, draw: np.random.Generator
) -> Iterator[BestHits]:
    """Yields the best hits of queries twice: with their right items, and with these taken out.

    Args:
        pairs: what is searched, and the queries.
        chosen: the instances whose items are searched with their queries.
        most: number of queries; of more a sample is drawn.
        draw: draws it.
    """
    queries = draw.permutation(np.flatnonzero(np.isin(pairs.query_ids, chosen)))[:most]
    items = np.flatnonzero(np.isin(pairs.item_ids, chosen))
    cosines = pairs.queries[queries] @ pairs.items[items].T
    right = pairs.query_ids[queries][:, None] == pairs.item_ids[items]
    count = min(RANKS, len(items) - int(right.sum(axis=1).max()))
    for seen in (cosines, np.where(right, -np.inf, cosines)):
        columns = np.argpartition(-seen, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(seen, columns, 1), axis=1, kind="stable")
        columns = np.take_along_axis(columns, order, 1)
        best = (np.take_along_axis(each, columns, 1) for each in (seen, right))
        yield BestHits(queries, items[columns], *best, len(items))


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
