"""A trained image tower for images of another size. Pure Keras."""

from __future__ import annotations

import keras
from keras import layers

from tf_dpce.errors import UserError
from tf_dpce.models.image_tower import SMALL, image_backbone, network_of


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
