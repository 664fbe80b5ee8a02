"""Backbones that are not of `keras.applications`, and the weights that a backbone can start from.

These checks need neither Keras nor TensorFlow, so that a mistake is found at once.
"""

from __future__ import annotations

from pathlib import Path

from tf_dpce.errors import UserError

SMALL = "small"
EFFICIENTNET_LITE = tuple(f"EfficientNetLite{number}" for number in range(5))


def check_weights(backbone: str, weights: str) -> None:
    """Refuses initial weights that cannot be found.

    Args:
        backbone: The name of the backbone.
        weights: "imagenet", "none" or a file.

    Raises:
        UserError: The file does not exist, or Keras does not publish these ImageNet weights.
    """
    if weights == "imagenet" and backbone in EFFICIENTNET_LITE:
        raise UserError(
            "model.imagenet",
            f"Keras has no ImageNet weights of {backbone}: make a file of the published ones with "
            "examples/convert_efficientnet_lite.py, as docs/training.md says, and give it with "
            "--weights FILE",
        )
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        message = f"weights file {weights} does not exist: give --weights imagenet, none or a file"
        raise UserError("model.weights", message, weights)
