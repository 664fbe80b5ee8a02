"""A trained image tower for images of another size. Pure Keras."""

from __future__ import annotations

import keras
from keras import layers

from tf_dpce.errors import UserError
from tf_dpce.models.image_tower import SMALL, image_backbone


def resized_tower(tower: keras.Model, backbone: str, input_size: int) -> keras.Model:
    """Builds a trained tower anew for images of another size.

    Args:
        tower: what `image_tower` returned. The result shares its head and copies the weights of
            its backbone.
        backbone: name of the tower's backbone.
        input_size: side of the square images, in pixels.

    Returns:
        A model from float32 RGB `[B, S, S, 3]` to float32 `[B, D]`; the tower itself if it has
        this size.

    Raises:
        UserError: the backbone does not end in an average over all positions, so that its
            features depend on the size.
    """
    if input_size == tower.input_shape[1]:
        return tower
    if backbone == SMALL or not _ends_in_average(tower):
        raise UserError(
            "model.image_size",
            f"{backbone} takes only squares of the {tower.input_shape[1]} pixels that it was "
            "trained on, because it does not end in an average over all positions: leave other "
            "sizes out",
        )
    backbone_model = image_backbone(backbone, None, input_size)
    backbone_model.set_weights(tower.get_layer("image_backbone").get_weights())
    pixels = keras.Input((input_size, input_size, 3), name="image")
    return keras.Model(
        pixels, tower.get_layer("image_head")(backbone_model(pixels)), name=tower.name
    )


def _ends_in_average(tower: keras.Model) -> bool:
    network = tower.get_layer("image_backbone").get_layer("image_network").layer
    return isinstance(network.layers[-1], layers.GlobalAveragePooling2D)
