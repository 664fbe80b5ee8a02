"""The image tower: a backbone and a small head. Pure Keras."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
from keras import layers

from tf_dpce.config.backbones import EFFICIENTNET_LITE, SMALL, check_weights
from tf_dpce.errors import UserError
from tf_dpce.models.backbone_weights import load_weights
from tf_dpce.models.efficientnet_lite import efficientnet_lite, scale_pixels
from tf_dpce.models.layers import InferenceMode, RowDropout, batch_norm, fan_in_uniform

# Width and stride of the convolutions of the "small" backbone. The maximum of the fourth over all
# positions says what the image shows, wherever it is, which a dense layer would have to learn for
# each position anew.
_SMALL_CONVOLUTIONS = ((32, 2), (64, 2), (96, 2), (128, 1), (96, 2))
_POOLED_CONVOLUTION = 4

_CUT_AT_FC7 = ("VGG16", "VGG19")
# These begin with a Normalization that keeps what it computed from its weights, so that a copy
# with the same weights would compute something else. EfficientNetV2 and -Lite do without.
_LEARNS_ITS_SCALING = "EfficientNetB"


def image_tower(
    backbone: str = "ResNet50",
    weights: str | None = None,
    input_size: int = 224,
    output_dim: int = 2048,
    name: str = "image_tower",
    *,
    head_dim: int = 2048,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds the image tower: a backbone named `image_backbone` and a head named `image_head`.

    Args:
        backbone: The name of a `keras.applications` model, whose features are averaged over all
            positions; "EfficientNetLite0" to "EfficientNetLite4"; or "small", a few plain
            convolutions for drawn scenes. The features of VGG16 and VGG19 are the output of the
            second dense layer, without its ReLU (the recipe), so `weights` must include the dense
            layers.
        weights: The weights of the backbone: "imagenet", a file that Keras saved, a `.npz` of
            arrays LAYER/KIND, or None (random).
        input_size: The width and height S of the images, in pixels.
        output_dim: The width D of the features.
        name: The name of the model.
        head_dim: The width of the head's hidden layer; 0 leaves it out.
        dropout: The share of the backbone's features that training zeroes (0 in the recipe).

    Returns:
        A functional model from float32 RGB `[B, S, S, 3]` in 0..255 (the backbone's own scaling is
        inside) to float32 features `[B, D]`, neither rectified nor normalised.

    Raises:
        UserError: The backbone is unknown or takes no images of this size, or the weights do not
            fit it.

    Example:
        >>> image_tower("MobileNetV2", output_dim=512).output_shape
        (None, 512)
    """
    backbone_model = image_backbone(backbone, weights, input_size)
    head = image_head(backbone_model.output_shape[-1], output_dim, head_dim, dropout)
    pixels = keras.Input((input_size, input_size, 3), name="image")
    return keras.Model(pixels, head(backbone_model(pixels)), name=name)


def image_backbone(backbone: str, weights: str | None, input_size: int) -> keras.Model:
    """Builds the backbone: float32 RGB `[B, S, S, 3]` in 0..255 -> pooled features `[B, F]`."""
    pixels = keras.Input((input_size, input_size, 3), name="pixels")
    if backbone == SMALL:
        return keras.Model(pixels, _small_features(pixels), name="image_backbone")
    check_weights(backbone, weights or "none")
    constructor, preprocess = _constructor(backbone)
    network = _load_network(constructor, backbone, weights, input_size)
    # Its BatchNorm runs on ImageNet's averages, also when it is fine-tuned: batches are small, and
    # weights with BatchNorm folded in know no other mode.
    features = InferenceMode(network, name="image_network")(preprocess(pixels))
    return keras.Model(pixels, features, name="image_backbone")


def resized_tower(tower: keras.Model, backbone: str, input_size: int) -> keras.Model:
    """Builds a trained tower anew for images of another size.

    Args:
        tower: The model that `image_tower` returned. The result shares its head and copies the
            weights of its backbone.
        backbone: The name of the tower's backbone.
        input_size: The side S of the square images, in pixels.

    Returns:
        A model from float32 RGB `[B, S, S, 3]` to float32 `[B, D]`; the tower itself if it has
        this size.

    Raises:
        UserError: The backbone does not end in an average over all positions, so that its
            features depend on the size.
    """
    if input_size == tower.input_shape[1]:
        return tower
    trained, head = (tower.get_layer(name) for name in ("image_backbone", "image_head"))
    last_layer = network_of(trained).layers[-1]
    if backbone == SMALL or not isinstance(last_layer, layers.GlobalAveragePooling2D):
        raise UserError(
            "model.image_size",
            f"{backbone} takes only squares of the {tower.input_shape[1]} pixels that it was "
            "trained on, because it does not end in an average over all positions: leave other "
            "sizes out",
        )
    resized = image_backbone(backbone, None, input_size)
    resized.set_weights(trained.get_weights())
    pixels = keras.Input((input_size, input_size, 3), name="image")
    return keras.Model(pixels, head(resized(pixels)), name=tower.name)


def network_of(backbone_model: keras.Model) -> keras.Model:
    """Returns the model within a backbone whose layers are those of `keras.applications`."""
    wrapped = [layer.layer for layer in backbone_model.layers if isinstance(layer, InferenceMode)]
    return wrapped[0] if wrapped else backbone_model


def freeze_before(backbone_model: keras.Model, first: str) -> None:
    """Freezes the layers of a backbone that come before one.

    Args:
        backbone_model: The model that `image_backbone` returned.
        first: The name of the first layer that is trained, such as "block_3_expand".

    Raises:
        UserError: The backbone has no such layer.
    """
    network = network_of(backbone_model)
    names = [layer.name for layer in network.layers]
    if first not in names:
        message = f"the backbone has no layer {first} to train from: give one of {', '.join(names)}"
        raise UserError("model.finetune_from", message)
    for layer in network.layers[: names.index(first)]:
        layer.trainable = False


def image_head(input_dim: int, output_dim: int, head_dim: int, dropout: float = 0.0) -> keras.Model:
    """Builds the head of the recipe: dense, BatchNorm, ReLU, dense, BatchNorm; no biases.

    Args:
        input_dim: The width F of the backbone's features.
        output_dim: The width D of the feature.
        head_dim: The width of the hidden layer; 0 leaves it and its BatchNorm and ReLU out.
        dropout: The share of the backbone's features that training zeroes.

    Returns:
        A functional model from float32 `[B, F]` to float32 `[B, D]`.
    """
    x = features = keras.Input((input_dim,), name="features")
    if dropout:
        x = RowDropout(dropout, name="image_feature_dropout")(x)
    if head_dim:
        x = batch_norm("image_fc1_bn")(_dense(head_dim, "image_fc1")(x))
        x = layers.ReLU(name="image_fc1_relu")(x)
    x = batch_norm("image_fc2_bn")(_dense(output_dim, "image_fc2")(x))
    return keras.Model(features, x, name="image_head")


def _dense(width: int, name: str) -> layers.Dense:
    return layers.Dense(width, use_bias=False, kernel_initializer=fan_in_uniform(), name=name)


def _small_features(pixels: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Rescaling(1 / 127.5, offset=-1, name="image_rescale")(pixels)
    for number, (width, stride) in enumerate(_SMALL_CONVOLUTIONS, start=1):
        name = f"image_conv{number}"
        x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False, name=name)(x)
        x = layers.ReLU(name=f"{name}_relu")(batch_norm(f"{name}_bn")(x))
        if number == _POOLED_CONVOLUTION:
            what = layers.GlobalMaxPooling2D(name="image_what")(x)
    # Flattened, not pooled: the position of a shape is what tells left from right.
    where = layers.Flatten(name="image_where")(x)
    return layers.Concatenate(name="image_features")([where, what])


def _load_network(
    constructor: Callable[..., keras.Model], backbone: str, weights: str | None, input_size: int
) -> keras.Model:
    """Returns the network of a backbone, without its scaling, with its weights."""
    published = "imagenet" if weights == "imagenet" else None
    try:
        network = constructor(weights=published, input_shape=(input_size, input_size, 3))
    except ValueError as error:
        raise UserError(
            "model.image_size", f"{backbone} takes no images of {input_size} pixels: {error}"
        ) from error
    except Exception as error:
        if not published:
            raise
        raise UserError(
            "model.download",
            f"the ImageNet weights of {backbone} could not be downloaded ({error}); "
            "give a file with --weights FILE",
        ) from error
    if weights and not published:
        load_weights(network, Path(weights), backbone)
    return _up_to_fc7(network) if backbone in _CUT_AT_FC7 else network


def _up_to_fc7(network: keras.Model) -> keras.Model:
    """Cuts a VGG as the recipe does: after its second dense layer, before that one's ReLU."""
    fc7 = network.get_layer("fc2")
    linear = layers.Dense(fc7.units, name="fc7")
    features = linear(network.get_layer("fc1").output)
    linear.set_weights(fc7.get_weights())
    return keras.Model(network.input, features, name=network.name)


def _constructor(
    backbone: str,
) -> tuple[Callable[..., keras.Model], Callable[..., keras.KerasTensor]]:
    """Returns what makes the network of a name, and what scales pixels for it."""
    if backbone in EFFICIENTNET_LITE:
        return partial(_lite, backbone), scale_pixels
    named = (name for name in vars(keras.applications) if name[0].isupper())
    known = sorted(name for name in named if not name.startswith(_LEARNS_ITS_SCALING))
    if backbone not in known:
        names = ", ".join((SMALL, *EFFICIENTNET_LITE, *known))
        raise UserError("model.backbone", f"unknown backbone {backbone}: give {names}")
    constructor = getattr(keras.applications, backbone)
    preprocess = importlib.import_module(constructor.__module__).preprocess_input
    if backbone in _CUT_AT_FC7:
        return constructor, preprocess
    return partial(constructor, include_top=False, pooling="avg"), preprocess


def _lite(backbone: str, weights: None, input_shape: tuple[int, int, int]) -> keras.Model:
    return efficientnet_lite(backbone, input_shape[0])
