"""The image tower: pixels -> image feature, a `keras.applications` backbone under a small head."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
from keras import layers

from tf_dpce.errors import UserError
from tf_dpce.models.layers import (
    InferenceMode,
    RowDropout,
    batch_norm,
    fan_in_uniform,
    member_names,
    member_width,
    side_by_side,
)

SMALL = "small"

# Width and stride of its convolutions, and the one whose maximum over all places is kept: it says
# what there is, wherever it is, which a dense layer would have to learn for each place anew.
_SMALL = ((32, 2), (64, 2), (96, 2), (128, 1), (96, 2))
_WHAT = 3

CUT_AT_FC7 = ("VGG16", "VGG19")


def image_tower(
    backbone: str = "ResNet50",
    weights: str | None = None,
    input_size: int = 224,
    output_dim: int = 2048,
    name: str = "image_tower",
    *,
    head_dim: int = 2048,
    dropout: float = 0.0,
    members: int = 1,
) -> keras.Model:
    """Builds the image tower: a backbone named `image_backbone` and a head named `image_head`.

    Args:
        backbone: a `keras.applications` model, or "small", a few plain convolutions for
            drawn scenes. Its features are averaged over all places; those of VGG16 and VGG19 are
            their second dense layer's, without its ReLU (the recipe), so that `weights` must
            have the dense layers.
        weights: of the backbone: "imagenet", a file that Keras saved, or None (random).
        input_size: side of the square images, in pixels.
        output_dim: D, width of the feature.
        name: name of the model.
        head_dim: width of the head's hidden layer; 0 leaves it out.
        dropout: share of the backbone's features zeroed in training (0 in the recipe).
        members: M, heads side by side (1 in the recipe). Each gives D / M of the feature.

    Returns:
        A functional model from float32 RGB `[B, S, S, 3]` in 0..255 (the backbone's own scaling is
        inside) to float32 features `[B, D]`, which are neither rectified nor normalised.

    Raises:
        UserError: an unknown backbone, or weights of another network.
        ValueError: M does not divide D.

    Example:
        >>> image_tower("MobileNetV2", output_dim=512).output_shape
        (None, 512)
    """
    backbone_model = image_backbone(backbone, weights, input_size)
    head = image_head(backbone_model.output_shape[-1], output_dim, head_dim, dropout, members)
    pixels = keras.Input((input_size, input_size, 3), name="image")
    return keras.Model(pixels, head(backbone_model(pixels)), name=name)


def image_backbone(backbone: str, weights: str | None, input_size: int) -> keras.Model:
    """Builds the backbone: float32 RGB `[B, S, S, 3]` in 0..255 -> pooled features `[B, F]`."""
    pixels = keras.Input((input_size, input_size, 3), name="pixels")
    if backbone == SMALL:
        return keras.Model(pixels, _small_features(pixels), name="image_backbone")
    constructor, preprocess = application(backbone)
    network = load_network(constructor, backbone, weights, input_size)
    # Its BatchNorm runs on ImageNet's averages, also when it is fine-tuned: batches are small, and
    # weights with BatchNorm folded in know no other mode.
    features = InferenceMode(network, name="image_network")(preprocess(pixels))
    return keras.Model(pixels, features, name="image_backbone")


def freeze_before(backbone_model: keras.Model, first: str) -> None:
    """Freezes the layers of a backbone that come before one.

    Args:
        backbone: what `image_backbone` returned.
        first: name of the first layer that stays as it is, such as "block_3_expand".

    Raises:
        UserError: the backbone has no such layer.
    """
    names = [layer.name for layer in backbone_model.layers]
    network = (
        backbone_model.get_layer("image_network").layer
        if "image_network" in names
        else backbone_model
    )
    names = [layer.name for layer in network.layers]
    if first not in names:
        raise UserError(
            f"the backbone has no layer {first} to train from: give one of {', '.join(names)}"
        )
    for layer in network.layers[: names.index(first)]:
        layer.trainable = False


def image_head(
    input_dim: int, output_dim: int, head_dim: int, dropout: float = 0.0, members: int = 1
) -> keras.Model:
    """Builds the head of the recipe: dense, BatchNorm, ReLU, dense, BatchNorm; no biases.

    Without a hidden layer (`head_dim` 0) the second dense layer and its BatchNorm are all there is.
    """
    width = member_width(output_dim, members)
    features, ends = keras.Input((input_dim,), name="features"), []
    for prefix in member_names("image", members):
        x = features
        if dropout:
            x = RowDropout(dropout, name=f"{prefix}_feature_dropout")(x)
        if head_dim:
            x = batch_norm(f"{prefix}_fc1_bn")(_dense(head_dim, f"{prefix}_fc1")(x))
            x = layers.ReLU(name=f"{prefix}_fc1_relu")(x)
        ends.append(batch_norm(f"{prefix}_fc2_bn")(_dense(width, f"{prefix}_fc2")(x)))
    return keras.Model(features, side_by_side(ends, "image_members"), name="image_head")


def _dense(width: int, name: str) -> layers.Dense:
    return layers.Dense(width, use_bias=False, kernel_initializer=fan_in_uniform(), name=name)


def _small_features(pixels: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Rescaling(1 / 127.5, offset=-1, name="image_rescale")(pixels)
    for number, (width, stride) in enumerate(_SMALL):
        x = layers.Conv2D(
            width, 3, stride, padding="same", use_bias=False, name=f"image_conv{number + 1}"
        )(x)
        x = batch_norm(f"image_conv{number + 1}_bn")(x)
        x = layers.ReLU(name=f"image_conv{number + 1}_relu")(x)
        if number == _WHAT:
            what = layers.GlobalMaxPooling2D(name="image_what")(x)
    # Flattened, not pooled: the place of a shape is what tells left from right.
    where = layers.Flatten(name="image_where")(x)
    return layers.Concatenate(name="image_features")([where, what])


def load_network(
    constructor: Callable[..., keras.Model],
    backbone: str,
    weights: str | None,
    input_size: int | None,
) -> keras.Model:
    """Returns the network of a backbone, without its scaling; an `input_size` of None takes any.

    Args:
        constructor: of `keras.applications`.
        backbone: its name.
        weights: "imagenet", a file, or None (random).
        input_size: side of the square images, in pixels.

    Raises:
        UserError: there are no such weights, or they are of another network.
    """
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise UserError(f"weights file {weights} does not exist; give 'imagenet', 'none' or a file")
    shape = (input_size, input_size, 3)
    try:
        if backbone in CUT_AT_FC7:
            return _up_to_fc7(constructor(weights=weights, input_shape=shape))
        return constructor(include_top=False, weights=weights, input_shape=shape, pooling="avg")
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"weights {weights} do not fit {backbone}: {reason}") from error
    except Exception as error:
        if weights != "imagenet":
            raise
        raise UserError(
            f"the ImageNet weights of {backbone} could not be downloaded ({error}); "
            "give a file with --weights FILE"
        ) from error


def _up_to_fc7(network: keras.Model) -> keras.Model:
    """Cuts a VGG where the recipe does: after its second dense layer, before that one's ReLU."""
    fc7 = network.get_layer("fc2")
    linear = layers.Dense(fc7.units, name="fc7")
    features = linear(network.get_layer("fc1").output)
    linear.set_weights(fc7.get_weights())
    return keras.Model(network.input, features, name=network.name)


def application(
    backbone: str,
) -> tuple[Callable[..., keras.Model], Callable[..., keras.KerasTensor]]:
    """Returns the constructor of that name and the `preprocess_input` that belongs to it."""
    known = sorted(name for name in vars(keras.applications) if name[0].isupper())
    if backbone not in known:
        raise UserError(f"unknown backbone {backbone}: one of {SMALL}, {', '.join(known)}")
    constructor = getattr(keras.applications, backbone)
    return constructor, importlib.import_module(constructor.__module__).preprocess_input
