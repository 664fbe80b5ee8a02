"""Publishes a run for TF Serving: `python -m pipelines.export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveInt

from pipelines._verb import options_verb, say_files
from tf_dpce.preprocessing.status import MAX_BYTES, MAX_PIXELS, Limits


def run(
    run: Path,
    to: Path,
    data: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    flip: bool = False,
    size: PositiveInt | None = None,
    float16: bool = False,
    max_bytes: PositiveInt = MAX_BYTES,
    max_pixels: PositiveInt = MAX_PIXELS,
) -> None:
    """Exports a run, verifies it in a fresh process and publishes it as a new version.

    Args:
        run: run folder.
        to: model folder, saved_models/NAME.
        data: prepared data, on whose validation split the probabilities of hits are calibrated.
        checkpoint: weights.
        flip: encode mirrored images too: twice the work.
        size: image size in pixels (default: the size of training).
        float16: store weights in float16: half the size on disk.
        max_bytes: reject larger files.
        max_pixels: reject larger images.
    """
    from tf_dpce.data.manifest import Manifest
    from tf_dpce.export.limits import check_limits
    from tf_dpce.export.versions import check_name
    from tf_dpce.files import check_writable
    from tf_dpce.storage import local_folder
    from tf_dpce.training.run_folder import check_run, load_run

    limits = Limits(max_bytes, max_pixels)
    check_name(to)
    check_limits(limits)
    check_run(run, checkpoint)
    check_writable(to)
    folder = local_folder(data) if data else None
    if folder:
        Manifest.load(folder)

    from tf_dpce.evaluation.tta import TestTimeAugmentation, augmented_model
    from tf_dpce.export.calibrate import calibrate
    from tf_dpce.export.model_card import run_metrics, run_provenance
    from tf_dpce.export.publish import export_model

    trained = load_run(run, checkpoint)
    augmentation = TestTimeAugmentation(flip, (size,) if size else (), float16)
    version = export_model(
        augmented_model(trained.model, trained.config.image.backbone, augmentation),
        trained.tokenizer,
        to,
        provenance=run_provenance(trained, checkpoint, augmentation),
        metrics=run_metrics(trained, checkpoint, augmentation),
        resize=trained.config.image.resize,
        limits=limits,
        calibration=calibrate(trained, folder, augmentation),
    )
    say_files(sorted(path for path in version.rglob("*") if path.is_file()))


build_parser, main = options_verb("export", run)


if __name__ == "__main__":
    sys.exit(main())
