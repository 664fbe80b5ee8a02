"""By what the best epoch of a stage is chosen: by nothing that cannot distinguish epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tf_dpce.evaluation.metrics import RANK_IMAGES
from tf_dpce.logging import logger

# The score of a stage before its first validation.
NO_SCORE = -math.inf
# One of N images moves R@1 by 100 / N points: with 50 images by 2, about as much as neighbouring
# epochs differ by. With fewer images many epochs share one rsum.
_RSUM_IMAGES = 50


def epoch_score(logs: Mapping[str, float], images: int) -> float:
    """Returns how good a validated epoch is; the later of two equal epochs is better.

    It is the rsum from 50 validation images on, the negative mean rank from 20 on, and below that
    0 for every epoch, so that the last one is the best.

    Args:
        logs: logs of the epoch, with `val_rsum` and `val_meanr`.
        images: number of validation images.

    Example:
        >>> epoch_score({"val_rsum": 300.0, "val_meanr": 4.5}, images=20)
        -4.5
    """
    if images >= _RSUM_IMAGES:
        return logs["val_rsum"]
    return -logs["val_meanr"] if images >= RANK_IMAGES else 0.0


def log_few_images(images: int) -> None:
    """Logs by what epochs are compared if the validation images are too few for recalls."""
    one = f"one of {images:,} validation images is {100 / images:.3g} points of R@1"
    if images < RANK_IMAGES:
        logger.warning(
            f"{one}, too coarse to compare epochs by: the last epoch of each stage counts as its "
            "best. To compare them, prepare with a --split-file that has 50 val images",
            extra={"fields": {"event": "diagnosis", "diagnosis": "few_validation_images"}},
        )
    elif images < _RSUM_IMAGES:
        logger.info(f"{one}: epochs are compared by their mean rank instead")
