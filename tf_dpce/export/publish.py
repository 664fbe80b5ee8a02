"""Exports a trained model: signatures, examples, warm-up and card, verified, then published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from tf_dpce.errors import UserError
from tf_dpce.export import ENDPOINTS, examples, replay, warmup
from tf_dpce.export.model_card import model_card
from tf_dpce.export.record import record_examples
from tf_dpce.export.seal import write_seal
from tf_dpce.export.signatures import Signatures, input_signature
from tf_dpce.export.verify import verify_version
from tf_dpce.export.versions import check_name, publish_version
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image_header import DEFAULT_LIMITS
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

CARD = "model_card.md"

# Under lower limits of bytes or pixels, the recorded examples themselves would be refused.
LEAST_LIMIT = 20_000
_LARGEST_LIMIT = 2**31 - 1


def export_model(
    model: DualPath,
    tokenizer: CaptionTokenizer,
    folder: Path,
    origin: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    squash: bool = False,
    limits: status.Limits = DEFAULT_LIMITS,
) -> Path:
    """Publishes a model as the next version in a folder, for TF Serving and `tf_dpce.load`.

    The version holds the endpoints `encode_image` and `encode_text`, which take JPEG or PNG
    bytes and sentences as they are, recorded examples, warm-up requests, a model card and the
    digests of all these files. It is verified in a fresh process before it appears, whole, under
    its number.

    Args:
        model: the trained model.
        tokenizer: the one that it was trained with.
        folder: of the model, NAME; versions are NAME/1, NAME/2, ...
        origin: what the card shall say of data, seed and settings.
        metrics: what the card shall say of results: by a name of the measurement, what
            `evaluate_split` returned.
        progress: called with (steps done, steps in all).
        squash: whether images are squashed to squares, as the model was trained.
        limits: of images; what is beyond gets a status, and is not decoded.

    Returns:
        The folder of the version.

    Raises:
        UserError: the export does not answer as the model does, or TF Serving would refuse it;
            or a limit is out of reach, or the folder's name. Nothing is published then.

    Example:
        >>> tokenizer = CaptionTokenizer(words, max_length=32, lowercase=True)
        >>> export_model(model, tokenizer, Path("saved_models/mine"))
        PosixPath('saved_models/mine/1')
    """
    check_name(folder)
    _check_limits(limits)

    def write(aside: Path) -> None:
        progress(0, 3)
        signatures = Signatures(model, tokenizer, squash, limits)
        write_archive(signatures, tokenizer, aside)
        progress(1, 3)
        recorded = record_examples(model, tokenizer, squash, limits)
        examples.save_examples(aside / examples.FILE, recorded)
        warmup.write_warmup(aside / replay.FILE, folder.name, ENDPOINTS, recorded)
        known = origin or {}, metrics or {}
        card = model_card(folder.name, model, tokenizer, *known, squash, limits)
        (aside / CARD).write_text(card)
        write_seal(aside)
        progress(2, 3)
        failures = verify_version(aside).failures
        if failures:
            raise UserError(f"the export to {folder} failed its verification: {failures[0]}")
        progress(3, 3)

    return publish_version(folder, write)


def _check_limits(limits: status.Limits) -> None:
    for name, value in vars(limits).items():
        if not LEAST_LIMIT <= value <= _LARGEST_LIMIT:
            raise UserError(
                f"{name} is {value:,}: choose it from {LEAST_LIMIT:,} to {_LARGEST_LIMIT:,}"
            )


def write_archive(signatures: Signatures, tokenizer: CaptionTokenizer, folder: Path) -> None:
    """Writes the SavedModel of both endpoints, and nothing else that a version has."""
    # Not `tf.saved_model.save` of the model: its variables are not found in a Session.
    # Only what the endpoints use goes in: neither classifier nor optimizer.
    archive = keras.export.ExportArchive()
    archive.track(tokenizer.table)
    for endpoint in ENDPOINTS:
        archive.add_endpoint(endpoint, getattr(signatures, endpoint), input_signature(endpoint))
    archive.write_out(str(folder), verbose=False)
