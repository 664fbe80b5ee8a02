"""A trained image tower anew, for images of other sizes."""

from __future__ import annotations

import keras
from keras import layers

from tf_dpce.errors import UserError
from tf_dpce.models.image_tower import CUT_AT_FC7, SMALL, application, image_backbone, load_network
from tf_dpce.models.layers import InferenceMode, SumOverPlaces


def resized_tower(tower: keras.Model, backbone: str, input_size: int) -> keras.Model:
    """Builds a trained tower anew for images of another size.

    Args:
        tower: what `image_tower` returned. Its head is shared, its backbone's weights are copied.
        backbone: of the tower.
        input_size: side of the square images, in pixels.

    Raises:
        UserError: the backbone's features depend on the size.
    """
    if input_size == tower.input_shape[1]:
        return tower
    if not _ends_in_average(tower, backbone):
        raise _one_size(tower, backbone)
    backbone_model = image_backbone(backbone, None, input_size)
    backbone_model.set_weights(tower.get_layer("image_backbone").get_weights())
    pixels = keras.Input((input_size, input_size, 3), name="image")
    return keras.Model(
        pixels, tower.get_layer("image_head")(backbone_model(pixels)), name=tower.name
    )


def convolutional_tower(tower: keras.Model, backbone: str) -> keras.Model:
    """Builds a trained tower anew for images of any sides, as the authors' test has it.

    Where the tower averages the backbone's map over all places, this one averages a window of that
    size wherever it fits, applies the head at each and adds their features. Where dense layers
    take the whole map, as in a VGG, they take such windows. A square image of the tower's own
    size has one such place, and the same feature.

    Args:
        tower: what `image_tower` returned. Its head is shared, its backbone's weights are copied.
        backbone: of the tower.

    Returns:
        A model from float32 RGB `[B, H, W, 3]` in 0..255, no side shorter than the tower's, to
        features `[B, D]`.

    Raises:
        UserError: the backbone's features depend on the size.
    """
    if backbone in CUT_AT_FC7:
        network = _vgg_at_every_place(_network(tower), backbone)
    elif _ends_in_average(tower, backbone):
        network = _average_at_every_place(_network(tower), backbone)
    else:
        raise _one_size(tower, backbone)
    _, preprocess = application(backbone)
    pixels = keras.Input((None, None, 3), name="image")
    places = InferenceMode(network)(preprocess(pixels))
    return keras.Model(pixels, SumOverPlaces(tower.get_layer("image_head"))(places))


def _average_at_every_place(trained: keras.Model, backbone: str) -> keras.Model:
    constructor, _ = application(backbone)
    network = load_network(constructor, backbone, None, None)
    network.set_weights(trained.get_weights())
    maps = network.layers[-1].input
    window = layers.AveragePooling2D(trained.layers[-1].input.shape[1:3], strides=1)
    return keras.Model(network.input, window(maps), name=trained.name)


def _vgg_at_every_place(trained: keras.Model, backbone: str) -> keras.Model:
    """Turns the dense layers into convolutions: the first as wide as the map that it takes."""
    constructor, _ = application(backbone)
    network = constructor(include_top=False, weights=None, input_shape=(None, None, 3))
    fc1, fc7 = trained.get_layer("fc1"), trained.get_layer("fc7")
    *convolutions, matrix, bias, matrix7, bias7 = trained.get_weights()
    network.set_weights(convolutions)
    _, height, width, channels = trained.get_layer("flatten").input.shape
    window = layers.Conv2D(fc1.units, (height, width), activation="relu", name="fc1")
    place = layers.Conv2D(fc7.units, 1, name="fc7")
    found = keras.Model(network.input, place(window(network.output)), name=trained.name)
    # Flattened, a map is rows of columns of channels, as a filter is.
    window.set_weights([matrix.reshape(height, width, channels, fc1.units), bias])
    place.set_weights([matrix7[None, None], bias7])
    return found


def _network(tower: keras.Model) -> keras.Model:
    return tower.get_layer("image_backbone").get_layer("image_network").layer


def _ends_in_average(tower: keras.Model, backbone: str) -> bool:
    return backbone != SMALL and isinstance(
        _network(tower).layers[-1], layers.GlobalAveragePooling2D
    )


def _one_size(tower: keras.Model, backbone: str) -> UserError:
    size = f"squares of the {tower.input_shape[1]} pixels that it was trained on"
    instead = "see images --whole" if backbone in CUT_AT_FC7 else "leave other sizes out"
    return UserError(
        f"{backbone} takes only {size}, as it does not end in an average over all places: {instead}"
    )
