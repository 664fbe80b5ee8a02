"""A recurrent text tower, to measure what convolutions are worth against it."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from tf_dpce.models.layers import RowDropout, WordEmbedding, batch_norm, fan_in_uniform


def recurrent_tower(
    vocabulary_size: int,
    max_length: int = 32,
    word_dim: int = 300,
    hidden_dims: Sequence[int] = (2048,),
    output_dim: int = 2048,
    name: str = "text_tower",
    *,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds a text tower of GRUs that read from left to right.

    Only the middle differs from the convolutional tower: word vectors and BatchNorm come before
    it, the maximum over all places, a dense layer and BatchNorm after it. Empty places are not
    masked there, so they are not masked here: what is compared is the GRU with the convolutions,
    not a mask with none. Where every place is read, captions may also stand anywhere in theirs,
    and cuDNN's kernel serves, which takes a mask only of captions aligned left.

    Args:
        vocabulary_size: V, the number of words; ids run from 1 to V, 0 is an empty place.
        max_length: T, the number of places.
        word_dim: width of a word vector.
        hidden_dims: widths of the GRUs, chosen to match another tower's size.
        output_dim: D, width of the feature.
        name: name of the model.
        word_dropout: share of word vectors zeroed in training.
        dropout: share of the pooled features zeroed in training.

    Returns:
        A functional model from int32 ids `[B, T]` to float32 features `[B, D]`.

    Example:
        >>> recurrent_tower(vocabulary_size=20_074).output_shape
        (None, 2048)
    """
    # === Layers ===
    ids = keras.Input((max_length,), dtype="int32", name="text")
    embedding = WordEmbedding(vocabulary_size, word_dim, name="text_embedding")

    # === Functional Model ===
    x = embedding(ids)
    if word_dropout:
        x = RowDropout(word_dropout, noise_shape=(None, None, 1), name="text_word_dropout")(x)
    x = batch_norm("text_embedding_bn")(x)
    for number, width in enumerate(hidden_dims):
        x = layers.GRU(width, return_sequences=True, name=f"text_gru{number}")(x)
    x = layers.GlobalMaxPooling1D(name="text_pool")(x)
    if dropout:
        x = RowDropout(dropout, name="text_feature_dropout")(x)
    x = layers.Dense(
        output_dim, use_bias=False, kernel_initializer=fan_in_uniform(), name="text_fc"
    )(x)
    return keras.Model(ids, batch_norm("text_fc_bn")(x), name=name)
