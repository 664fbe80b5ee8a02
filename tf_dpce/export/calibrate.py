"""Calibrates the probabilities of a run's hits before it is exported."""

from __future__ import annotations

import time
from pathlib import Path

from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration import Calibration
from tf_dpce.evaluation.calibration_fit import MOST_IMAGES, check_enough, fit_calibration
from tf_dpce.evaluation.cut import cut
from tf_dpce.evaluation.protocols import CALIBRATION_SPLIT
from tf_dpce.evaluation.tta import TestTimeAugmentation
from tf_dpce.logging import logger, progress
from tf_dpce.training.run_folder import Run


def calibrate(
    run: Run, data: Path | None, augmentation: TestTimeAugmentation, dimension: int
) -> Calibration | None:
    """Fits a calibration on the first 1,000 validation images, and says how long it took.

    Args:
        run: the run to export.
        data: prepared data, or None.
        augmentation: what the export adds to the model.
        dimension: how many numbers of each embedding the export gives.

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
    images = val.images if val else 0
    began = time.monotonic()
    try:
        check_enough(images)
        found = _fit(run, data, min(images, MOST_IMAGES), augmentation, dimension)
    except UserError as error:
        if error.code != "calibration.few":
            raise
        logger.warning(f"{lost}: {error}")
        return None
    seconds = time.monotonic() - began
    logger.info(f"probabilities calibrated on {found.images:,} images in {seconds:.0f} s")
    return found


def _fit(
    run: Run, data: Path, first: int, augmentation: TestTimeAugmentation, dimension: int
) -> Calibration:
    from tf_dpce.evaluation.embed import SplitEncoder

    encoder = SplitEncoder(run.model, run.tokenizer, run.config.image, augmentation, batch_size=64)
    images, texts = encoder.embed(data, CALIBRATION_SPLIT, first)
    vectors = (cut(each.vectors, dimension) for each in (images, texts))
    with progress("calibration", transient=True):
        return fit_calibration(*vectors, images.instances, texts.instances)
