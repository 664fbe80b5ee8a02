"""What data tells of a run before it is exported: probabilities of hits, and axes to cut along."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration import Calibration
from tf_dpce.evaluation.calibration_fit import MOST_IMAGES, check_enough, fit_calibration
from tf_dpce.evaluation.cut import cut, principal_axes
from tf_dpce.evaluation.embed import SplitEncoder
from tf_dpce.evaluation.protocols import CALIBRATION_SPLIT
from tf_dpce.logging import logger, progress

# Twice as many as an embedding has numbers, and five times as many captions.
AXES_IMAGES = 2_000


def calibrate(
    encoder: SplitEncoder, data: Path | None, dimension: int, axes: np.ndarray | None = None
) -> Calibration | None:
    """Fits a calibration on the first 1,000 validation images, and says how long it took.

    Args:
        encoder: of the run to export, with what the export adds to the model.
        data: prepared data, or None.
        dimension: how many numbers of each embedding the export gives.
        axes: float `[D, D]`, by which it turns embeddings first, see `fit_axes`.

    Returns:
        None, after a warning, without data or if the pairs are too few.

    Raises:
        UserError: `data` is not prepared data.
    """
    lost = "the hits of this export have no probabilities"
    if data is None:
        logger.warning(f"{lost}: give prepared data with --data to calibrate them")
        return None
    val = Manifest.load(data).splits.get(CALIBRATION_SPLIT)
    count = val.images if val else 0
    began = time.monotonic()
    try:
        check_enough(count)
        images, texts = encoder.embed(data, CALIBRATION_SPLIT, min(count, MOST_IMAGES))
        turned = (e.vectors if axes is None else e.vectors @ axes for e in (images, texts))
        vectors = [cut(each, dimension) for each in turned]
        with progress("calibration", transient=True):
            found = fit_calibration(*vectors, images.instances, texts.instances)
    except UserError as error:
        if error.code != "calibration.few":
            raise
        logger.warning(f"{lost}: {error}")
        return None
    seconds = time.monotonic() - began
    logger.info(f"probabilities calibrated on {found.images:,} images in {seconds:.0f} s")
    return found


def fit_axes(encoder: SplitEncoder, data: Path) -> np.ndarray:
    """Returns the axes along which a run's embeddings can be cut.

    Args:
        encoder: of the run to export, with what the export adds to the model.
        data: prepared data, of whose training images the first 2,000 and their captions are taken.

    Returns:
        float32 `[D, D]`, see `principal_axes`.
    """
    images, texts = encoder.embed(data, "train", AXES_IMAGES)
    return principal_axes(images.vectors, texts.vectors)
