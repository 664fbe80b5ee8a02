"""A split of prepared data, embedded once for all that is measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration_fit import MOST_IMAGES, fit_calibration
from tf_dpce.evaluation.calibration_report import measure_calibration
from tf_dpce.evaluation.embed import Embeddings, SplitEncoder
from tf_dpce.evaluation.protocols import CALIBRATION_SPLIT, PROTOCOLS, QUERYBANK_IMAGES, split_named
from tf_dpce.evaluation.querybank import querybank_normalised
from tf_dpce.evaluation.vocabulary_coverage import CaptionCounts, count_captions


@dataclass(frozen=True)
class EmbeddedSplit:
    """A split of prepared data with its embeddings.

    Attributes:
        folder: the prepared data.
        split: name of the split.
        encoder: what embedded it, and can embed other splits.
        counts: numbers of captions and of their words.
        plain: embeddings of the images and of the captions, of unit length.
        images: embeddings of the images that are compared: normalised if there is a querybank.
        texts: the same of the captions.
    """

    folder: Path
    split: str
    encoder: SplitEncoder
    counts: CaptionCounts
    plain: tuple[Embeddings, Embeddings]
    images: Embeddings
    texts: Embeddings


def embed_split(
    encoder: SplitEncoder, folder: Path, split: str, protocol: str = "all"
) -> EmbeddedSplit:
    """Embeds a split that `check_evaluation` has passed; see `evaluate_split`.

    Raises:
        UserError: some images have fewer captions than the protocol takes.
    """
    counts = count_captions(folder, split, encoder.tokenizer)
    _check_captions(protocol, folder, split, counts.per_image)
    plain = images, texts = encoder.embed(folder, split)
    if querybank := encoder.augmentation.querybank:
        first = min(QUERYBANK_IMAGES, split_named(folder, querybank).images)
        pairs = (plain, encoder.embed(folder, querybank, first))
        vectors = querybank_normalised(*(each.vectors for pair in pairs for each in pair))
        images = Embeddings(vectors[0], images.instances)
        texts = Embeddings(vectors[1], texts.instances)
    return EmbeddedSplit(folder, split, encoder, counts, plain, images, texts)


def score_split(
    embedded: EmbeddedSplit, protocol: str = "all", calibration: bool = False
) -> dict[str, Any]:
    """Scores a split that is embedded.

    Args:
        embedded: the split.
        protocol: a name in `PROTOCOLS`.
        calibration: whether the probabilities of hits are measured, too. They are calibrated on the
            validation split, and come from plain cosines whatever the querybank.

    Returns:
        What `evaluate_split` returns, and with `calibration` also `calibration`, what
        `measure_calibration` returns.
    """
    images, texts, counts = embedded.images, embedded.texts, embedded.counts
    return {
        **PROTOCOLS[protocol].score(images, texts, counts.images),
        **(measured_probabilities(embedded) if calibration else {}),
        "images": len(images.vectors),
        "unit": embedded.encoder.tokenizer.unit,
        "vocabulary": counts.coverage(),
        "cut_off": {
            "positions": embedded.encoder.tokenizer.max_length,
            "captions": counts.cut,
            "words": counts.lost_words,
        },
    }


def _check_captions(protocol: str, folder: Path, split: str, per_image: np.ndarray) -> None:
    """Makes sure that each image has the captions that the protocol takes."""
    takes, images = PROTOCOLS[protocol], len(per_image)
    short = int(np.sum(per_image < (takes.captions or 0)))
    if short:
        raise UserError(
            "evaluation.protocol_captions",
            f"{short:,} of the {images:,} images of {folder}, split {split}, have fewer than the "
            f"{takes.captions} captions that {protocol} takes of each: use the protocol all",
            folder,
        )


def measured_probabilities(embedded: EmbeddedSplit) -> dict[str, Any]:
    """Calibrates on the validation split, and measures the result on another."""
    images, texts = embedded.plain
    first = min(MOST_IMAGES, split_named(embedded.folder, CALIBRATION_SPLIT).images)
    shown, captions = embedded.encoder.embed(embedded.folder, CALIBRATION_SPLIT, first)
    fitted = fit_calibration(*shown.compared_with(captions))
    return {"calibration": measure_calibration(fitted, *images.compared_with(texts))}
