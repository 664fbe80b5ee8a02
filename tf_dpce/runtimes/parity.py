"""Compares a runtime with the SavedModel that was exported beside it, on its golden examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpce.errors import UserError
from tf_dpce.export.golden import Examples, load_examples
from tf_dpce.export.serving_module import ServingModule, decode_images
from tf_dpce.preprocessing import status
from tf_dpce.runtimes.encoder import RuntimeEncoder

# From the same bytes. Decoders of JPEG round differently, by one of 255 on average.
LEAST_COSINE = 0.999
# Of each number, from the same pixels and captions.
TOLERANCE = 1e-4


def check_parity(module: ServingModule, version: Path, runtime: str) -> None:
    """Makes sure that a runtime answers the golden examples as they were recorded.

    Args:
        module: what was exported, which decodes the images.
        version: the folder of the version, with its examples and the files of the runtime.
        runtime: the runtime.

    Raises:
        UserError: it answers differently.
    """
    encoder, examples = RuntimeEncoder(version, runtime), load_examples(version)
    images, texts = examples["encode_image"], examples["encode_text"]
    pixels, codes = decode_images(
        tf.constant(images.inputs), module.image_size, module.resize, module.limits
    )
    usable = codes.numpy() == status.OK
    same_pixels = encoder.image_engine(pixels.numpy()[usable])
    faults = {
        "pixels": _numbers(same_pixels, images.embeddings[usable]),
        "images": _bytes(encoder.encode_contents("images", images.inputs), images),
        "captions": _bytes(encoder.encode_contents("texts", texts.inputs), texts)
        or _numbers(encoder.encode_contents("texts", texts.inputs)[0], texts.embeddings),
    }
    for what, fault in faults.items():
        if fault:
            message = f"{runtime} answers the recorded {what} differently: {fault}"
            raise UserError("runtimes.differs", message, version)


def _numbers(found: np.ndarray, expected: np.ndarray) -> str | None:
    difference = float(np.abs(found - expected).max(initial=0))
    # Written so that NaN fails.
    return None if difference <= TOLERANCE else f"embeddings differ by {difference:.1e}"


def _bytes(answer: tuple[np.ndarray, np.ndarray], expected: Examples) -> str | None:
    embeddings, statuses = answer
    if not np.array_equal(statuses, expected.statuses):
        return f"statuses are {statuses.tolist()}, recorded were {expected.statuses.tolist()}"
    cosines = (embeddings * expected.embeddings).sum(axis=1)[statuses == status.OK]
    least = float(cosines.min(initial=1))
    return None if least >= LEAST_COSINE else f"the cosine of an embedding is {least:.4f}"
