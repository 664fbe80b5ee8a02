"""Publishes a run for TF Serving: `python -m pipelines.export`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import PositiveInt

from pipelines._verb import options_verb, say_files
from tf_dpce.config import Config
from tf_dpce.errors import UserError
from tf_dpce.logging import logger
from tf_dpce.preprocessing.status import MAX_BYTES, MAX_PIXELS, Limits
from tf_dpce.runtimes import Precision, Runtime

if TYPE_CHECKING:
    import numpy as np

    from tf_dpce.evaluation.embed import SplitEncoder


def run(
    run: Path,
    to: Path,
    data: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    flip: bool = False,
    size: PositiveInt | None = None,
    float16: bool = False,
    expand: list[Path] | None = None,
    expand_size: PositiveInt | None = None,
    dim: PositiveInt | None = None,
    max_bytes: PositiveInt = MAX_BYTES,
    max_pixels: PositiveInt = MAX_PIXELS,
    format_: list[Runtime] | None = None,
    precision: Precision = "float32",
) -> None:
    """Exports a run, verifies it in a fresh process and publishes it as a new version.

    Args:
        run: run folder.
        to: model folder, saved_models/NAME.
        data: prepared data, on whose validation split the probabilities of hits are calibrated,
            and on whose training split the axes of --dim are found and int8 is fitted.
        checkpoint: weights.
        flip: encode mirrored images too: twice the work.
        size: image size in pixels (default: the size of training).
        float16: store weights in float16: half the size on disk.
        expand: files of word vectors, side by side as in training, from which the model learns to
            understand words that no training caption has.
        expand_size: number of such words (default: all of the files, at most 20,000).
        dim: give so many numbers of each embedding: with --data along the axes that say most,
            else the first ones, of a run that was trained with prefixes (default: all as they are).
        max_bytes: reject larger files.
        max_pixels: reject larger images.
        format_: write both encoders for these runtimes too: onnx, openvino, litert.
        precision: of litert: float32, float16, dynamic (weights alone in int8), or int8.
    """
    from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
    from tf_dpce.export.limits import check_limits
    from tf_dpce.export.versions import check_name
    from tf_dpce.files import check_writable
    from tf_dpce.preprocessing.vocabulary import read_vocabulary
    from tf_dpce.runtimes.examples import check_data
    from tf_dpce.runtimes.write import check_formats, write_runtimes
    from tf_dpce.storage import local_folder
    from tf_dpce.training.run_folder import check_run, load_run

    limits = Limits(max_bytes, max_pixels)
    check_name(to)
    check_limits(limits)
    check_formats(format_ or [], precision, data)
    whole = check_run(run, checkpoint)[0].model.output_dim
    if dim and dim > whole:
        message = f"{run} has embeddings of {whole} numbers: set --dim to {whole} at most"
        raise UserError("export.dim", message, run)
    check_writable(to)
    folder = local_folder(data) if data else None
    if folder:
        Manifest.load(folder)
    if precision == "int8":
        check_data(folder, read_vocabulary(run / VOCABULARY_FILE))
    further = _further_words(run, expand, expand_size)

    from tf_dpce.evaluation.embed import SplitEncoder
    from tf_dpce.evaluation.tta import TestTimeAugmentation, augmented_model
    from tf_dpce.export.calibrate import calibrate
    from tf_dpce.export.expansion import expand as infer_words
    from tf_dpce.export.model_card import run_metrics, run_provenance
    from tf_dpce.export.publish import export_model
    from tf_dpce.models.shortening import shortened_model

    trained = load_run(run, checkpoint)
    if further:
        trained = infer_words(trained, expand, further)
    augmentation = TestTimeAugmentation(flip, (size,) if size else (), float16)
    config = trained.config
    model = augmented_model(trained.model, config.image.backbone, augmentation)
    encoder = SplitEncoder(trained.model, trained.tokenizer, config.image, augmentation)
    provenance = run_provenance(trained, checkpoint, augmentation)
    axes, more = None, None
    if dim:
        axes, taken = _axes(encoder, folder, config, dim)
        model = shortened_model(model, dim, axes)
        provenance["numbers of an embedding"] = taken
    if format_:
        more = partial(write_runtimes, formats=format_, precision=precision, data=folder)
    version = export_model(
        model,
        trained.tokenizer,
        to,
        provenance=provenance,
        metrics=run_metrics(trained, checkpoint, augmentation),
        resize=config.image.resize,
        limits=limits,
        calibration=calibrate(encoder, folder, dim or whole, axes),
        more=more,
    )
    say_files(sorted(path for path in version.rglob("*") if path.is_file()))


def _axes(
    encoder: SplitEncoder, data: Path | None, config: Config, dim: int
) -> tuple[np.ndarray | None, str]:
    """Returns the axes along which embeddings are cut, if there are data, and what is taken."""
    if data:
        from tf_dpce.export.calibrate import fit_axes

        return fit_axes(encoder, data), f"{dim} along the principal axes of training embeddings"
    stages = config.stage1, config.stage2
    if dim < config.model.output_dim and not any(stage.loss.prefixes for stage in stages):
        logger.warning(
            f"the first {dim} numbers of embeddings that were trained without prefixes say little: "
            "give prepared data with --data to find axes that say most"
        )
    return None, f"first {dim}"


def _further_words(run: Path, files: list[Path] | None, size: int | None) -> list[str]:
    """Returns the words that a run is to be given, before TensorFlow is imported."""
    from tf_dpce.data.manifest import VOCABULARY_FILE
    from tf_dpce.export.expansion import words_to_infer
    from tf_dpce.preprocessing.vocabulary import read_vocabulary
    from tf_dpce.training.run_folder import read_config, run_config

    if not files:
        if size:
            raise UserError("expand.vectors", "--expand-size needs --expand FILE of word vectors")
        return []
    tokens = run_config(run).text.tokenizer
    if tokens != "words":
        message = f"{run} was trained on {tokens}: --expand is for words"
        raise UserError("expand.tokenizer", message, run)
    words = read_vocabulary(run / VOCABULARY_FILE)
    return words_to_infer(files, words, read_config(run)["data"]["lowercase"], size)


build_parser, main = options_verb("export", run)


if __name__ == "__main__":
    sys.exit(main())
