"""A trained text tower that is given words which it was never trained on. Pure Keras."""

from __future__ import annotations

import keras
import numpy as np

from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.layers import WordEmbedding


def expanded(model: DualPath, rows: np.ndarray) -> DualPath:
    """Returns a model that knows further words and answers as before for the others.

    Args:
        model: A trained model, with V words. The result shares its image tower.
        rows: The vectors of X further words, float `[X, E]`; their ids are V + 1 to V + X.

    Example:
        >>> wider = expanded(model, np.zeros((2, model.word_embedding.output_dim)))
        >>> wider.word_embedding.expansion
        2
    """
    tower = model.text_tower

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        changes = {"expansion": len(rows)} if isinstance(layer, WordEmbedding) else {}
        # A layer's own config names its policy only.
        config = {**layer.get_config(), "dtype": layer.dtype_policy}
        return type(layer).from_config({**config, **changes})

    wider = keras.models.clone_model(tower, clone_function=copy)
    for layer in tower.layers:
        further = [rows] if isinstance(layer, WordEmbedding) else []
        wider.get_layer(layer.name).set_weights([*layer.get_weights(), *further])
    return DualPath(**model.shared_parts(text_tower=wider))
