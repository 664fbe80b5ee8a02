"""Measures the probabilities of hits on pairs that they were not fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration import QUERY_KIND, Calibration, Direction
from tf_dpce.evaluation.calibration_fit import RANKS, Pairs, searched_hits
from tf_dpce.evaluation.reliability import calibration_error, reliability, roc_area

SIZES = (100, 1_000)  # instances of the archives that are searched, besides all
_INSTANCES = 2_000  # of all archives of one size together, if there are as many
_COSINES = 2**25  # of an archive and as many queries as that leaves room for: 128 MiB
_SEED = 0
# The kind that is searched.
_KINDS = {"image_to_text": "texts", "text_to_image": "images"}


def measure_calibration(
    calibration: Calibration,
    images: np.ndarray,
    texts: np.ndarray,
    image_ids: np.ndarray,
    text_ids: np.ndarray,
) -> dict[str, list[dict[str, Any]]]:
    """Measures the probabilities of hits in archives of several sizes.

    Every query is asked twice: with its right items in the archive, and with these taken out.

    Args:
        calibration: fitted on other pairs.
        images: float `[N, D]`, unit vectors.
        texts: float `[M, D]`, unit vectors.
        image_ids: int `[N]`, the instance of each image.
        text_ids: int `[M]`, the instance of each text.

    Returns:
        By direction, `image_to_text` and `text_to_image`, a dict for each size of the archive:
        `items`, their number; `right_first`, the share of queries whose first hit is right if the
        right item is there; `error`, the expected calibration error of first hits over bins of
        equal width; `error_ten_hits`, that of the ten best hits; `error_if_there`, that of first
        hits if the right item is always there. `area`, the area under the ROC curve by which the
        highest probability distinguishes archives that have the right item; `area_of_cosine`, that
        of the highest cosine. `reliability`, for each bin of `error` the mean probability of its
        hits, the share of right ones, and their number.

    Raises:
        UserError: there are fewer than 20 instances with images and texts.
    """
    sides = {"images": (images, image_ids), "texts": (texts, text_ids)}
    instances = np.intersect1d(image_ids, text_ids)
    if len(instances) < 2 * RANKS:
        message = f"{len(instances)} instances are too few to measure probabilities on"
        raise UserError("calibration.few", message)
    sizes = [size for size in SIZES if size < len(instances)] + [len(instances)]
    return {
        direction: [
            _measure(
                calibration.directions[kind],
                Pairs(*sides[kind], *sides[QUERY_KIND[kind]]),
                instances,
                size,
            )
            for size in sizes
        ]
        for direction, kind in _KINDS.items()
    }


def _measure(side: Direction, pairs: Pairs, instances: np.ndarray, size: int) -> dict[str, Any]:
    """Searches archives of `size` instances; see `measure_calibration`."""
    draw = np.random.default_rng(_SEED)
    usual, popular = side.closeness(pairs.queries, pairs.items)
    found = []
    for _ in range(max(1, min(_INSTANCES, len(instances)) // size)):
        chosen = draw.choice(instances, size, replace=False)
        items = int(np.isin(pairs.item_ids, chosen).sum())
        for hits in searched_hits(pairs, chosen, _COSINES // items, draw):
            near = popular[hits.rows]
            chances = side.chances(hits.cosines, usual[hits.queries], near, items)
            found.append((chances, hits.right, hits.cosines[:, :1]))
    there, absent = (
        [np.concatenate(each) for each in zip(*found[start::2], strict=True)] for start in (0, 1)
    )
    chances, right = (np.concatenate(both) for both in zip(there[:2], absent[:2], strict=True))
    bins = reliability(chances[:, 0], right[:, 0])
    return {
        "items": items,
        "right_first": float(there[1][:, 0].mean()),
        "error": calibration_error(bins),
        "error_ten_hits": calibration_error(reliability(chances.ravel(), right.ravel())),
        "error_if_there": calibration_error(reliability(there[0][:, 0], there[1][:, 0])),
        "area": roc_area(there[0].max(axis=1), absent[0].max(axis=1)),
        "area_of_cosine": roc_area(there[2][:, 0], absent[2][:, 0]),
        "reliability": bins,
    }
