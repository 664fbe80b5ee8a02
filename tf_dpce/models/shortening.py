"""A trained model that gives fewer numbers of its embeddings. Pure Keras."""

from __future__ import annotations

from typing import Any

import keras

from tf_dpce.models.dual_path import DualPath


def shortened_model(model: DualPath, dimension: int, axes: Any = None) -> DualPath:
    """Returns a model whose embeddings are the first numbers of another's, of unit length.

    Along all axes, embeddings have the cosines that they had.

    Args:
        model: A trained model. The result shares its towers, but not its classifier, which scores
            whole embeddings.
        dimension: How many numbers.
        axes: Floats `[D, D]`, an orthogonal matrix: embeddings are turned by it first.

    Example:
        >>> shortened_model(model, 1).text_encoder.output_shape
        (None, 1)
    """
    towers = [
        keras.Model(tower.input, _shortened(tower.output, dimension, axes), name=tower.name)
        for tower in (model.image_tower, model.text_tower)
    ]
    return DualPath(*towers, num_instances=1)


def _shortened(feature: Any, dimension: int, axes: Any) -> Any:
    if axes is None:
        return feature[:, :dimension]
    turned = keras.layers.Dense(dimension, use_bias=False, dtype="float32", name="axes")
    shortened = turned(feature)
    turned.kernel.assign(axes[:, :dimension])
    return shortened
