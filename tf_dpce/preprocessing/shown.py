"""The pixels of a file as the model sees them, for a person to look at."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.image import decode
from tf_dpce.preprocessing.image_header import check

# A JPEG is halved while no side becomes shorter.
_SHORTEST = 400


def shown_pixels(contents: bytes) -> np.ndarray | int:
    """Decodes a file as training and serving do, whole: without the crop to a square.

    Args:
        contents: the bytes of a file of any kind that `prepare` and `embed` take.

    Returns:
        uint8 RGB `[H, W, 3]`, or the status of a file that has no pixels.
    """
    contents, code = to_png(contents)
    if code != status.OK:
        return code
    try:
        code, pixels = _checked(tf.constant(contents))
    except tf.errors.InvalidArgumentError:
        return status.UNDECODABLE
    return pixels.numpy() if code == status.OK else int(code)


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _checked(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    code = check(contents)
    none = tf.zeros([0, 0, 3], tf.uint8)
    return code, tf.cond(code == status.OK, lambda: decode(contents, _SHORTEST), lambda: none)
