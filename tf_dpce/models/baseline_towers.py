"""Text towers to measure the convolutions against. Pure Keras."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from tf_dpce.models.layers import batch_norm
from tf_dpce.models.text_tower import caption_tower, word_vectors


def recurrent_tower(
    vocabulary_size: int,
    max_length: int = 32,
    word_dim: int = 300,
    hidden_dims: Sequence[int] = (2048,),
    output_dim: int = 2048,
    *,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds a text tower of GRUs that read from left to right.

    Only the middle differs from `text_tower`: word vectors and BatchNorm come before it, the
    maximum over all positions, a dense layer and BatchNorm after it. `text_tower` does not mask
    empty positions, so they are not masked here either: GRUs are compared with convolutions, not a
    mask with none. Without a mask captions may start at any position, and cuDNN's kernel serves.

    Args:
        vocabulary_size: The number V of words; ids run from 1 to V, 0 is an empty position.
        max_length: The number T of token positions.
        word_dim: The width of a word vector.
        hidden_dims: The widths of the GRUs, chosen to match another tower's size.
        output_dim: The width D of the feature.
        word_dropout: The share of word vectors that training zeroes.
        dropout: The share of the pooled features that training zeroes.

    Returns:
        A functional model from int32 ids `[B, T]` to float32 features `[B, D]`.

    Example:
        >>> recurrent_tower(vocabulary_size=20_074).output_shape
        (None, 2048)
    """
    ids, x = word_vectors(vocabulary_size, max_length, word_dim, word_dropout)
    x = batch_norm("text_embedding_bn")(x)
    for number, width in enumerate(hidden_dims):
        x = layers.GRU(width, return_sequences=True, name=f"text_gru{number}")(x)
    x = layers.GlobalMaxPooling1D(name="text_pool")(x)
    return caption_tower(ids, x, output_dim, dropout)


def bag_of_words_tower(
    vocabulary_size: int,
    max_length: int = 32,
    word_dim: int = 300,
    hidden_dims: Sequence[int] = (2048, 2048),
    output_dim: int = 2048,
    *,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds a text tower that is blind to the order of words.

    The mean of the word vectors over all positions goes through dense layers, each with BatchNorm
    and ReLU.

    Args:
        vocabulary_size: The number V of words; ids run from 1 to V, 0 is an empty position.
        max_length: The number T of token positions.
        word_dim: The width of a word vector.
        hidden_dims: The widths of the dense layers, chosen to match another tower's size.
        output_dim: The width D of the feature.
        word_dropout: The share of word vectors that training zeroes.
        dropout: The share of the pooled features that training zeroes.

    Returns:
        A functional model from int32 ids `[B, T]` to float32 features `[B, D]`.

    Example:
        >>> bag_of_words_tower(vocabulary_size=20_074).output_shape
        (None, 2048)
    """
    ids, x = word_vectors(vocabulary_size, max_length, word_dim, word_dropout)
    x = batch_norm("text_pool_bn")(layers.GlobalAveragePooling1D(name="text_pool")(x))
    for number, width in enumerate(hidden_dims):
        x = layers.Dense(width, use_bias=False, name=f"text_hidden{number}")(x)
        x = layers.ReLU(name=f"text_hidden{number}_relu")(batch_norm(f"text_hidden{number}_bn")(x))
    return caption_tower(ids, x, output_dim, dropout, initializer="glorot_uniform")
