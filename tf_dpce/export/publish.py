"""Exports a trained model: graph, golden examples, warm-up and card, verified, then published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from tf_dpce.config import Resize
from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration import CALIBRATION_FOLDER, Calibration
from tf_dpce.export import ENDPOINTS
from tf_dpce.export.checksums import write_checksums
from tf_dpce.export.golden import record_examples, save_examples, write_warmup
from tf_dpce.export.limits import check_limits
from tf_dpce.export.model_card import model_card
from tf_dpce.export.serving_module import ServingModule, input_signature
from tf_dpce.export.verify import verify_version
from tf_dpce.export.versions import check_name, publish_version
from tf_dpce.logging import progress
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image_header import DEFAULT_LIMITS
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

CARD_FILE = "model_card.md"

# Adds files to the folder of a version that holds all others but the checksums.
WriteMore = Callable[[ServingModule, Path], None]


def export_model(
    model: DualPath,
    tokenizer: CaptionTokenizer,
    folder: str | Path,
    provenance: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    resize: Resize = "center_crop",
    limits: status.Limits = DEFAULT_LIMITS,
    calibration: Calibration | None = None,
    more: WriteMore | None = None,
) -> Path:
    """Exports a model as the next version in a folder, for TF Serving and `tf_dpce.load`.

    The version contains a SavedModel with the endpoints `encode_image` (JPEG or PNG bytes) and
    `encode_text` (strings), golden examples, warm-up requests, a model card and the checksums of
    all files. It is verified in a fresh process, and only then appears under its number.

    Args:
        model: the trained model.
        tokenizer: the tokenizer that the model was trained with.
        folder: the folder of the model, NAME; versions are NAME/1, NAME/2, ...
        provenance: data, seed and settings for the model card.
        metrics: results for the model card: the results of `evaluate_split` by the name of the
            measurement.
        resize: how images become squares, "center_crop" or "stretch".
        limits: the largest number of bytes and pixels of an image. A larger image is not decoded
            and gets a status.
        calibration: what gives the hits of searches their probabilities, see `fit_calibration`.
        more: adds files to the version before it is verified, such as those of other runtimes:
            `lambda *version: write_runtimes(*version, ["onnx"])`.

    Returns:
        The folder of the version.

    Raises:
        UserError: the export answers differently from the model, TF Serving would refuse it, a
            limit is out of range, or the folder's name is invalid. Nothing is published then.

    Example:
        >>> export_model(model, tokenizer, "saved_models/mine")
        PosixPath('saved_models/mine/1')
    """
    folder = Path(folder)
    check_name(folder)
    check_limits(limits)

    def write(version: Path) -> None:
        display.update(0, 2)
        module = ServingModule(model, tokenizer, resize, limits)
        write_version(module, version, folder.name, provenance, metrics, calibration, more)
        display.update(1, 2)
        for check in verify_version(version):
            if not check.passed:
                message = f"the export failed its verification: {check.name}: {check.finding}"
                raise UserError("export.rejected", message, folder)
        display.update(2, 2)

    with progress("steps of the export", transient=True) as display:
        return publish_version(folder, write)


def write_version(
    module: ServingModule,
    version: Path,
    name: str,
    provenance: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    more: WriteMore | None = None,
) -> None:
    """Writes all files of a version into its folder, and verifies nothing.

    Args:
        module: what is exported.
        version: the folder, empty.
        name: the name of the model.
        provenance: see `export_model`.
        metrics: see `export_model`.
        calibration: see `export_model`.
        more: see `export_model`.
    """
    write_archive(module, version)
    examples = record_examples(module)
    save_examples(version, examples)
    write_warmup(version, name, examples)
    if calibration:
        calibration.save(version / CALIBRATION_FOLDER)
    card = model_card(name, module, provenance or {}, metrics or {}, calibration)
    (version / CARD_FILE).write_text(card)
    if more:
        more(module, version)
    write_checksums(version)


def write_archive(module: ServingModule, folder: Path) -> None:
    """Writes the SavedModel of both endpoints, and nothing else that a version has."""
    # Not `tf.saved_model.save` of the model: its variables are not found in a Session.
    # Only what the endpoints use goes in: neither classifier nor optimizer.
    archive = keras.export.ExportArchive()
    archive.track(module.tokenizer.table)
    for endpoint in ENDPOINTS:
        archive.add_endpoint(endpoint, getattr(module, endpoint), input_signature(endpoint))
    archive.write_out(str(folder), verbose=False)
