"""Examples of prepared data as encoders take them: to fit int8 to, and to compare with float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import sha256_lines
from tf_dpce.runtimes.manifest import IMAGE, TEXT

if TYPE_CHECKING:
    from tf_dpce.export.serving_module import ServingModule

FITTED, HELD_OUT = "train", "val"
_BATCH = 64


def check_data(folder: Path, words: Sequence[str] | None) -> None:
    """Makes sure that int8 can be fitted to prepared data; needs no TensorFlow.

    Args:
        folder: prepared data.
        words: those that the model was trained on; None if it reads pieces of words.

    Raises:
        UserError: it is no prepared data, has another vocabulary than the model, or has no images
            to fit to or to compare with.
    """
    manifest = Manifest.load(folder)
    if words is not None and manifest.vocabulary_sha256 != sha256_lines(words):
        fault = "has another vocabulary than the model"
    elif not all(manifest.splits[split].images for split in (FITTED, HELD_OUT)):
        fault = f"has no images in its splits {FITTED} and {HELD_OUT}"
    else:
        return
    message = f"{folder} {fault}: give the data that it was trained on"
    raise UserError("runtimes.data", message, folder)


def first_examples(
    module: ServingModule, folder: Path, split: str, count: int
) -> dict[str, np.ndarray]:
    """Returns the first images of a split, and all their captions.

    Args:
        module: what is exported.
        folder: prepared data.
        split: the name of the split.
        count: N, the number of images.

    Returns:
        Pixels float32 `[N, S, S, 3]` and token ids int32 `[M, T]` by the encoder that takes them.
    """
    from tf_dpce.data.input_pipeline import evaluation_captions, evaluation_images

    images = evaluation_images(folder, split, module.image_size, _BATCH, module.resize, count)
    captions = evaluation_captions(folder, split, module.tokenizer, _BATCH, count)
    return {
        IMAGE: np.concatenate([batch["image"] for batch in images]),
        TEXT: np.concatenate([batch["text"] for batch in captions]),
    }
