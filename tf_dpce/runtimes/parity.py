"""Compares a runtime with the SavedModel that was exported beside it.

All are compared on its golden examples; int8, which is fitted to data, on data it was not fitted to
as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.errors import UserError
from tf_dpce.export.golden import Examples, load_examples
from tf_dpce.export.serving_module import ServingModule, decode_images
from tf_dpce.logging import logger
from tf_dpce.preprocessing import status
from tf_dpce.runtimes.encoder import RuntimeEncoder
from tf_dpce.runtimes.manifest import IMAGE, TEXT

# Of each golden example, from the same bytes. In float32 it is decoders of JPEG that differ. For
# int8 the drawings among them are unlike what it is fitted to.
LEAST_COSINE = {"float32": 0.999, "float16": 0.999, "dynamic": 0.9, "int8": 0.5}
# Of data that int8 was not fitted to, the mean.
LEAST_MEAN_COSINE = 0.97
# Of each number in float32, from the same pixels and captions.
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
    precision = encoder.manifest.precision if runtime == "litert" else "float32"
    images, texts = examples["encode_image"], examples["encode_text"]
    answers = {
        "images": (encoder.encode_contents("images", images.inputs), images),
        "captions": (encoder.encode_contents("texts", texts.inputs), texts),
    }
    faults = {
        what: _fault_of_bytes(*each, LEAST_COSINE[precision]) for what, each in answers.items()
    }
    if precision == "float32":
        pixels, codes = decode_images(
            tf.constant(images.inputs), module.image_size, module.resize, module.limits
        )
        usable = codes.numpy() == status.OK
        same_pixels = encoder.image_engine(pixels.numpy()[usable])
        faults["pixels"] = _fault_of_numbers(same_pixels, images.embeddings[usable])
        faults["words"] = _fault_of_numbers(answers["captions"][0][0], texts.embeddings)
    for what, fault in faults.items():
        if fault:
            message = f"{runtime} answers the recorded {what} differently: {fault}"
            raise UserError("runtimes.differs", message, version)


def check_held_out(
    encoders: Mapping[str, keras.Model], version: Path, examples: Mapping[str, np.ndarray]
) -> None:
    """Makes sure that LiteRT's embeddings of further examples are nearly those of float32.

    Args:
        encoders: in float32, by their kind.
        version: the folder of the version, with LiteRT's files.
        examples: what they are to embed, see `examples.first_examples`.

    Raises:
        UserError: the mean cosine is below `LEAST_MEAN_COSINE`.
    """
    small = RuntimeEncoder(version, "litert")
    engines = {IMAGE: small.image_engine, TEXT: small.text_engine}
    for kind, rows in examples.items():
        expected = encoders[kind].predict(rows, verbose=0)
        mean = float((engines[kind](rows) * expected).sum(axis=1).mean())
        logger.info(f"{kind}: mean cosine {mean:.4f} with float32, of {len(rows)} examples")
        if not mean >= LEAST_MEAN_COSINE:
            message = (
                f"embeddings of the {kind} encoder in {small.manifest.precision} have a mean "
                f"cosine of {mean:.3f} with those in float32, not {LEAST_MEAN_COSINE}: export "
                "with --precision float16 or dynamic"
            )
            raise UserError("runtimes.differs", message, version)


def _fault_of_numbers(found: np.ndarray, expected: np.ndarray) -> str | None:
    """Returns what is wrong with embeddings of the same pixels or token ids, or None."""
    difference = float(np.abs(found - expected).max(initial=0))
    # Written so that NaN fails.
    return None if difference <= TOLERANCE else f"embeddings differ by {difference:.1e}"


def _fault_of_bytes(
    answer: tuple[np.ndarray, np.ndarray], expected: Examples, least: float
) -> str | None:
    """Returns what is wrong with the answer to the same bytes, or None."""
    embeddings, statuses = answer
    if not np.array_equal(statuses, expected.statuses):
        return f"statuses are {statuses.tolist()}, recorded were {expected.statuses.tolist()}"
    cosines = (embeddings * expected.embeddings).sum(axis=1)[statuses == status.OK]
    lowest = float(cosines.min(initial=1))
    return None if lowest >= least else f"the cosine of an embedding is {lowest:.4f}"
