"""A trained model that gives the first numbers of its embeddings. Pure Keras."""

from __future__ import annotations

import keras

from tf_dpce.models.dual_path import DualPath


def shortened_model(model: DualPath, dimension: int) -> DualPath:
    """Returns a model whose embeddings are the first numbers of another's, of unit length.

    Args:
        model: A trained model. The result shares its towers, but not its classifier, which scores
            whole embeddings.
        dimension: How many numbers, fewer than the model's.

    Example:
        >>> shortened_model(model, 1).text_encoder.output_shape
        (None, 1)
    """
    towers = (
        keras.Model(tower.input, tower.output[:, :dimension], name=tower.name)
        for tower in (model.image_tower, model.text_tower)
    )
    return DualPath(*towers, num_instances=1)
