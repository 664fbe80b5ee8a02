"""EfficientNet-Lite 0 to 4 as flat functional models. Pure Keras.

An EfficientNet without squeeze-and-excitation and with ReLU6, whose stem, last convolution and
first and last stage are alike in all five. No layer hides another, so that BatchNorm can be fused
and training can start at any layer. All convolutions pad as TensorFlow's "same" does: at a stride
of 2 the odd row and column of zeros come last. The published weights need exactly that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
from keras import layers

from tf_dpce.config.backbones import EFFICIENTNET_LITE

_STEM, _TOP = 32, 1280
_EPSILON = 1e-3
# Five halvings leave one position of these pixels.
_SMALLEST = 32


class _Stage(NamedTuple):
    blocks: int
    width: int
    kernel: int
    stride: int
    expansion: int


_STAGES = (
    _Stage(1, 16, 3, 1, 1),
    _Stage(2, 24, 3, 2, 6),
    _Stage(2, 40, 5, 2, 6),
    _Stage(3, 80, 3, 2, 6),
    _Stage(3, 112, 5, 1, 6),
    _Stage(4, 192, 5, 2, 6),
    _Stage(1, 320, 3, 1, 6),
)
# The factors of the widths and of the numbers of blocks.
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))


def efficientnet_lite(name: str, input_size: int) -> keras.Model:
    """Builds an EfficientNet-Lite with random weights, up to the mean over all positions.

    Its layers are `stem_conv`, `stem_bn`; for block x (a, b, ...) of stage S (1 to 7)
    `blockSx_expand_conv`, `blockSx_expand_bn`, `blockSx_dwconv`, `blockSx_dwconv_bn`,
    `blockSx_project_conv`, `blockSx_project_bn`; `top_conv`, `top_bn`. Stage 1 does not expand.

    Args:
        name: "EfficientNetLite0" to "EfficientNetLite4".
        input_size: The side S of the square images, in pixels.

    Returns:
        A functional model from float32 RGB `[B, S, S, 3]`, scaled by `scale_pixels`, to features
        `[B, 1280]`.

    Raises:
        ValueError: Images of less than 32 pixels leave no position.

    Example:
        >>> network = efficientnet_lite("EfficientNetLite0", input_size=224)
        >>> network.get_layer("block7a_project_bn").output.shape
        (None, 7, 7, 320)
    """
    if input_size < _SMALLEST:
        raise ValueError(f"images have at least {_SMALLEST} pixels a side")
    width_factor, depth_factor = _SCALES[EFFICIENTNET_LITE.index(name)]
    pixels = keras.Input((input_size, input_size, 3), name="pixels")
    x = _relu(_norm(_convolution(pixels, _STEM, "stem", kernel=3, stride=2), "stem"), "stem")
    for number, stage in enumerate(_STAGES, start=1):
        fixed = number in (1, len(_STAGES))
        blocks = stage.blocks if fixed else math.ceil(stage.blocks * depth_factor)
        width = _rounded(stage.width * width_factor)
        for place in range(blocks):
            block = f"block{number}{chr(ord('a') + place)}"
            x = _block(x, stage, width, 1 if place else stage.stride, block)
    x = _relu(_norm(_convolution(x, _TOP, "top"), "top"), "top")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(pixels, x, name=name.lower())


def scale_pixels(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Returns RGB in 0..255 scaled as the published weights expect it: (x - 127) / 128."""
    return layers.Rescaling(1 / 128, offset=-127 / 128, name="image_rescale")(pixels)


def _block(
    x: keras.KerasTensor, stage: _Stage, width: int, stride: int, name: str
) -> keras.KerasTensor:
    """Adds an inverted residual block: it widens, filters each channel and narrows."""
    y, channels = x, x.shape[-1]
    if stage.expansion > 1:
        y = _convolution(x, channels * stage.expansion, f"{name}_expand")
        y = _relu(_norm(y, f"{name}_expand"), f"{name}_expand")
    y = layers.DepthwiseConv2D(
        stage.kernel, stride, padding="same", use_bias=False, name=f"{name}_dwconv"
    )(y)
    y = _relu(_norm(y, f"{name}_dwconv"), f"{name}_dwconv")
    y = _norm(_convolution(y, width, f"{name}_project"), f"{name}_project")
    same_shape = stride == 1 and width == channels
    return layers.Add(name=f"{name}_add")([y, x]) if same_shape else y


def _rounded(width: float) -> int:
    """Returns the nearest multiple of 8, at least nine tenths of a width."""
    nearest = int(width + 4) // 8 * 8
    return nearest if nearest >= 0.9 * width else nearest + 8


def _convolution(
    x: keras.KerasTensor, width: int, name: str, kernel: int = 1, stride: int = 1
) -> keras.KerasTensor:
    return layers.Conv2D(
        width, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)


def _norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)


def _relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x)
