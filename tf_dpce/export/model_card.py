"""The card of an exported model: what it is, where it comes from and what it cannot do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from tf_dpce.evaluation.report import metrics_rows, short_digest
from tf_dpce.files import sha256_lines
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image_header import DEFAULT_LIMITS
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


def model_card(
    name: str,
    model: DualPath,
    tokenizer: CaptionTokenizer,
    origin: Mapping[str, Any],
    metrics: Mapping[str, Any],
    squash: bool = False,
    limits: status.Limits = DEFAULT_LIMITS,
) -> str:
    """Composes the card, in Markdown.

    Args:
        name: of the model.
        model: the trained model.
        tokenizer: the one that it was trained with.
        origin: what is known of data, seed and settings.
        metrics: by a name of the measurement, what `evaluate_split` returned, and the digest of
            the split that it was measured on, under `split_digest`.
        squash: whether images are squashed to squares.
        limits: of images.
    """
    sections = [
        f"# {name}",
        "Embeds images and sentences as unit vectors of one space, so that an image and what "
        "describes it have a large inner product (Dual-Path Convolutional Image-Text Embeddings "
        "with Instance Loss, Zheng et al., 2020).",
        "## Model",
        _table(("", ""), _model_rows(model, tokenizer)),
        "## Origin",
        _table(("", ""), origin.items()) if origin else "Not recorded.",
        "## Results",
        _results(metrics) if metrics else "Not measured.",
        "## Endpoints",
        _endpoints(model, tokenizer, squash),
        _table(("status", "meaning"), status.REASONS.items()),
        "## Limits",
        _limits(tokenizer, limits),
    ]
    return "\n\n".join(sections) + "\n"


def _model_rows(model: DualPath, tokenizer: CaptionTokenizer) -> Iterable[tuple[str, object]]:
    size = model.image_encoder.input_shape[1]
    yield "embedding", f"{model.image_encoder.output_shape[-1]} numbers"
    yield "image", f"{size} x {size} pixels"
    yield "parameters of the image tower", f"{model.image_tower.count_params():,}"
    yield "parameters of the text tower", f"{model.text_tower.count_params():,}"
    yield "sentence", f"{tokenizer.max_length} known words at most"
    yield "vocabulary", f"{len(tokenizer.words):,} words"
    yield "vocabulary SHA-256", sha256_lines(tokenizer.words)
    yield "made with", ", ".join(f"{p} {version(p)}" for p in ("tensorflow", "keras"))


def _results(metrics: Mapping[str, Any]) -> str:
    headings, rows = metrics_rows(metrics)
    splits = {name: short_digest(found.get("split_digest", "")) for name, found in metrics.items()}
    marked = ([*row, splits[row[0]]] for row in rows)
    return _table(("measured on", "direction", *headings, "split digest"), marked)


def _endpoints(model: DualPath, tokenizer: CaptionTokenizer, squash: bool) -> str:
    size, width = model.image_encoder.input_shape[1], model.image_encoder.output_shape[-1]
    part = "All of the image is squashed" if squash else "The largest centred square is resized"
    case = "lower-cased, then " if tokenizer.lowercase else ""
    return (
        f"`encode_image` takes `image`, strings `[B]`: JPEG or PNG bytes. "
        f"{part} to {size} x {size} pixels (bicubic, antialiased). Grey images are "
        "repeated over three channels, CMYK is converted, alpha is dropped, 16 bits become 8, and "
        "an animated PNG gives its first frame.\n\n"
        f"`encode_text` takes `text`, strings `[B]`: UTF-8 sentences, which are {case}split at "
        "`- . , ( ) ?` and white space. Words outside the vocabulary are dropped.\n\n"
        f"Both answer `embedding`, float32 `[B, {width}]` (all zeros where the status is not 0), "
        "and `status`, int32 `[B]`:"
    )


def _limits(tokenizer: CaptionTokenizer, limits: status.Limits) -> str:
    return (
        f"- Files up to {limits.max_bytes:,} bytes, images up to {limits.max_pixels:,} pixels, "
        f"sentences up to {status.MAX_SENTENCE_BYTES:,} bytes.\n"
        f"- Words of a sentence beyond the {tokenizer.max_length}th known one are ignored.\n"
        "- A JPEG with damaged bytes often decodes, to other pixels: no status tells that.\n"
        "- It knows what its training captions speak of, in their language, with their biases."
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
