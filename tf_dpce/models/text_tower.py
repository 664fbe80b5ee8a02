"""The convolutional text towers, the authors' and a small one: word ids -> caption feature.

Pure Keras.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from tf_dpce.models.layers import (
    CausalConvolution,
    RowDropout,
    WordEmbedding,
    batch_norm,
    fan_in_uniform,
)

WIDTHS = (256, 512, 1024, 2048)

# Token positions that a convolution of the small tower sees, its own and those before it: "left of
# a small green square" lies within one, so that a single layer can say what is left of what. Two
# positions at a time, as in the recipe, need many layers and far more training for that.
_SMALL_KERNEL = 6


def text_tower(
    vocabulary_size: int,
    max_length: int = 32,
    word_dim: int = 300,
    blocks: Sequence[int] = (3, 4, 6, 1),
    output_dim: int = 2048,
    name: str = "text_tower",
    *,
    widths: Sequence[int] = WIDTHS,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds the convolutional text tower.

    The tower consists of word vectors, BatchNorm, groups of residual blocks, the maximum over all
    token positions and a dense layer. The first block of a group is wide: all its convolutions are
    as wide as its output. In the second and third group this block also halves the length. The
    other blocks of a group have a bottleneck of a quarter of the width. There is no mask: empty
    token positions pass through every convolution, as in the authors' code.

    Args:
        vocabulary_size: The number V of words; ids are 1 to V, and 0 is an empty token position.
        max_length: The number T of token positions.
        word_dim: The width of a word vector.
        blocks: The number of residual blocks in each group; the recipe's are (3, 4, 6, 1).
        output_dim: The width D of the features.
        name: The name of the model.
        widths: The width of each group, one for each entry of `blocks`.
        word_dropout: The share of word vectors that training zeroes (0 in the recipe).
        dropout: The share of the pooled features that training zeroes (0 in the recipe).

    Returns:
        A functional model from int32 ids `[B, T]` to float32 features `[B, D]`, neither rectified
        nor normalised. It has 30,301,784 trainable parameters at the defaults, the word vectors
        and their bias left out.

    Raises:
        ValueError: `blocks` and `widths` differ in length, or are empty.

    Example:
        >>> text_tower(vocabulary_size=20_074).output_shape
        (None, 2048)
    """
    if not blocks or len(blocks) != len(widths):
        raise ValueError(f"One width for each group of blocks. Received: {blocks=}, {widths=}")
    ids, x = word_vectors(vocabulary_size, max_length, word_dim, word_dropout)
    x = batch_norm("text_embedding_bn")(x)
    for group, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        # The first block of the first group opens at half its width.
        first = width if group else width // 2
        for block in range(count):
            x = _block(
                x,
                width,
                middle=width // 4 if block else first,
                # The second and the third group halve the length at their first block.
                stride=2 if block == 0 and group in (1, 2) else 1,
                project=block == 0,
                name=f"text_{group + 1}_{block + 1}",
            )
    x = layers.GlobalMaxPooling1D(name="text_pool")(x)
    return caption_tower(ids, x, output_dim, dropout, name)


def small_text_tower(
    vocabulary_size: int,
    max_length: int = 32,
    word_dim: int = 64,
    widths: Sequence[int] = (128, 192),
    output_dim: int = 256,
    *,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds a small text tower, which learns in minutes where the things of a caption lie.

    The tower consists of word vectors, BatchNorm, plain convolutions of six token positions each,
    with BatchNorm and ReLU, the maximum over all token positions, a dense layer and BatchNorm.

    Args:
        vocabulary_size: The number V of words; ids are 1 to V, and 0 is an empty token position.
        max_length: The number T of token positions.
        word_dim: The width of a word vector.
        widths: The width of each convolution.
        output_dim: The width D of the features.
        word_dropout: The share of word vectors that training zeroes.
        dropout: The share of the pooled features that training zeroes.

    Returns:
        A functional model from int32 ids `[B, T]` to float32 features `[B, D]`, neither rectified
        nor normalised.

    Example:
        >>> small_text_tower(vocabulary_size=47, max_length=28).output_shape
        (None, 256)
    """
    ids, x = word_vectors(vocabulary_size, max_length, word_dim, word_dropout)
    x = batch_norm("text_embedding_bn")(x)
    for number, width in enumerate(widths, start=1):
        x = _convolution(x, width, _SMALL_KERNEL, 1, f"text_conv{number}")
        x = layers.ReLU(name=f"text_conv{number}_relu")(x)
    x = layers.GlobalMaxPooling1D(name="text_pool")(x)
    return caption_tower(ids, x, output_dim, dropout)


def word_vectors(
    vocabulary_size: int, max_length: int, word_dim: int, word_dropout: float
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns the input of a text tower, ids `[B, T]`, and word vectors `[B, T, word_dim]`."""
    ids = keras.Input((max_length,), dtype="int32", name="text")
    x = WordEmbedding(vocabulary_size, word_dim, name="text_embedding")(ids)
    if word_dropout:
        x = RowDropout(word_dropout, noise_shape=(None, None, 1), name="text_word_dropout")(x)
    return ids, x


def caption_tower(
    ids: keras.KerasTensor,
    pooled: keras.KerasTensor,
    output_dim: int,
    dropout: float,
    name: str = "text_tower",
    initializer: str | keras.initializers.Initializer | None = None,
) -> keras.Model:
    """Returns the text tower that ends in dropout, a dense layer and BatchNorm.

    Args:
        ids: The input of the tower.
        pooled: Features `[B, F]` of whole captions.
        output_dim: The width D of the feature.
        dropout: The share of the pooled features that training zeroes.
        name: The name of the model.
        initializer: The initializer of the dense layer; None takes the authors'.
    """
    if dropout:
        pooled = RowDropout(dropout, name="text_feature_dropout")(pooled)
    x = layers.Dense(
        output_dim,
        use_bias=False,
        kernel_initializer=initializer or fan_in_uniform(),
        name="text_fc",
    )(pooled)
    return keras.Model(ids, batch_norm("text_fc_bn")(x), name=name)


def _block(
    x: keras.KerasTensor, width: int, middle: int, stride: int, project: bool, name: str
) -> keras.KerasTensor:
    """Adds a residual block; `project` adds a convolution to its shortcut."""
    y = _convolution(x, middle, 1, 1, f"{name}_a")
    y = layers.ReLU(name=f"{name}_a_relu")(y)
    y = _convolution(y, middle, 2, stride, f"{name}_b")
    y = layers.ReLU(name=f"{name}_b_relu")(y)
    y = _convolution(y, width, 1, 1, f"{name}_c")
    shortcut = _convolution(x, width, 1, stride, f"{name}_shortcut") if project else x
    y = layers.Add(name=f"{name}_add")([y, shortcut])
    return layers.ReLU(name=f"{name}_relu")(y)


def _convolution(
    x: keras.KerasTensor, width: int, kernel: int, stride: int, name: str
) -> keras.KerasTensor:
    initializer = fan_in_uniform()
    x = CausalConvolution(width, kernel, stride, kernel_initializer=initializer, name=name)(x)
    return batch_norm(f"{name}_bn")(x)
