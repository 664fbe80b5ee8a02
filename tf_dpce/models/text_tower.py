"""The text tower: word ids -> sentence feature, by convolutions alone (the authors' code)."""

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
    member_names,
    member_width,
    side_by_side,
)

WIDTHS = (256, 512, 1024, 2048)


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
    members: int = 1,
) -> keras.Model:
    """Builds the convolutional text tower.

    Word vectors and BatchNorm, then residual groups. A group opens with a wide block (all its
    convolutions as wide as its output; the second and third group halve the length); the blocks
    that follow squeeze to a quarter. The maximum over all places and one dense layer close it.
    There is no mask: empty places flow through every convolution, as in the authors' code.

    Args:
        vocabulary_size: V, the number of words; ids run from 1 to V, 0 is an empty place.
        max_length: T, the number of places.
        word_dim: width of a word vector.
        blocks: number of residual blocks in each group; the recipe's are (3, 4, 6, 1).
        output_dim: D, width of the feature.
        name: name of the model.
        widths: width of each group, one for each entry of `blocks`.
        word_dropout: share of word vectors zeroed in training (0 in the recipe).
        dropout: share of the pooled features zeroed in training (0 in the recipe).
        members: M, towers side by side over one table of word vectors (1 in the recipe). Each
            gives D / M of the feature, by weights and dropout of its own.

    Returns:
        A functional model from int32 ids `[B, T]` to float32 features `[B, D]`, which are
        neither rectified nor normalised. 30,301,784 trainable parameters at the defaults, the
        word vectors and their bias left out.

    Raises:
        ValueError: `blocks` and `widths` differ in length, or are empty; M does not divide D.

    Example:
        >>> text_tower(vocabulary_size=20_074).output_shape
        (None, 2048)
    """
    if not blocks or len(blocks) != len(widths):
        raise ValueError(f"One width for each group of blocks. Received: {blocks=}, {widths=}")

    width = member_width(output_dim, members)

    # === Layers ===
    ids = keras.Input((max_length,), dtype="int32", name="text")
    embedding = WordEmbedding(vocabulary_size, word_dim, name="text_embedding")

    # === Functional Model ===
    words, features = embedding(ids), []
    for prefix in member_names("text", members):
        x = words
        if word_dropout:
            noise_shape = (None, None, 1)
            x = RowDropout(word_dropout, noise_shape=noise_shape, name=f"{prefix}_word_dropout")(x)
        x = batch_norm(f"{prefix}_embedding_bn")(x)
        x = _groups(x, blocks, widths, prefix)
        x = layers.GlobalMaxPooling1D(name=f"{prefix}_pool")(x)
        if dropout:
            x = RowDropout(dropout, name=f"{prefix}_feature_dropout")(x)
        x = layers.Dense(
            width, use_bias=False, kernel_initializer=fan_in_uniform(), name=f"{prefix}_fc"
        )(x)
        features.append(batch_norm(f"{prefix}_fc_bn")(x))
    return keras.Model(ids, side_by_side(features, "text_members"), name=name)


def bag_of_words_tower(
    vocabulary_size: int,
    max_length: int = 32,
    word_dim: int = 300,
    hidden_dims: Sequence[int] = (2048, 2048),
    output_dim: int = 2048,
    name: str = "text_tower",
    *,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> keras.Model:
    """Builds a text tower that is blind to the order of words, to measure what order is worth.

    The mean of the word vectors over all places goes through dense layers, each with BatchNorm
    and ReLU.

    Args:
        vocabulary_size: V, the number of words; ids run from 1 to V, 0 is an empty place.
        max_length: T, the number of places.
        word_dim: width of a word vector.
        hidden_dims: widths of the hidden layers, chosen to match another tower's size.
        output_dim: D, width of the feature.
        name: name of the model.
        word_dropout: share of word vectors zeroed in training.
        dropout: share of the last hidden layer's features zeroed in training.

    Returns:
        A functional model from int32 ids `[B, T]` to float32 features `[B, D]`.
    """
    ids = keras.Input((max_length,), dtype="int32", name="text")
    x = WordEmbedding(vocabulary_size, word_dim, name="text_embedding")(ids)
    if word_dropout:
        x = RowDropout(word_dropout, noise_shape=(None, None, 1), name="text_word_dropout")(x)
    x = layers.GlobalAveragePooling1D(name="text_pool")(x)
    x = batch_norm("text_pool_bn")(x)
    for number, width in enumerate(hidden_dims):
        x = layers.Dense(width, use_bias=False, name=f"text_hidden{number}")(x)
        x = layers.ReLU(name=f"text_hidden{number}_relu")(batch_norm(f"text_hidden{number}_bn")(x))
    if dropout:
        x = RowDropout(dropout, name="text_feature_dropout")(x)
    x = layers.Dense(output_dim, use_bias=False, name="text_fc")(x)
    return keras.Model(ids, batch_norm("text_fc_bn")(x), name=name)


def _stride(group: int, block: int) -> int:
    """The second and the third group halve the length at their first block."""
    return 2 if block == 0 and group in (1, 2) else 1


def _middle(group: int, block: int, width: int) -> int:
    """Width of a block's first two convolutions: its output's where a group opens, else a quarter.

    The first group is the exception: it opens at half its width.
    """
    if block > 0:
        return width // 4
    return width // 2 if group == 0 else width


def _groups(
    x: keras.KerasTensor, blocks: Sequence[int], widths: Sequence[int], prefix: str
) -> keras.KerasTensor:
    for group, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            sizes = (width, _middle(group, block, width), _stride(group, block))
            x = _block(x, *sizes, block == 0, f"{prefix}_{group + 1}_{block + 1}")
    return x


def _block(
    x: keras.KerasTensor, width: int, middle: int, stride: int, opens: bool, name: str
) -> keras.KerasTensor:
    y = _convolution(x, middle, 1, 1, f"{name}_a")
    y = layers.ReLU(name=f"{name}_a_relu")(y)
    y = _convolution(y, middle, 2, stride, f"{name}_b")
    y = layers.ReLU(name=f"{name}_b_relu")(y)
    y = _convolution(y, width, 1, 1, f"{name}_c")
    shortcut = _convolution(x, width, 1, stride, f"{name}_shortcut") if opens else x
    y = layers.Add(name=f"{name}_add")([y, shortcut])
    return layers.ReLU(name=f"{name}_relu")(y)


def _convolution(
    x: keras.KerasTensor, width: int, kernel: int, stride: int, name: str
) -> keras.KerasTensor:
    initializer = fan_in_uniform()
    x = CausalConvolution(width, kernel, stride, kernel_initializer=initializer, name=name)(x)
    return batch_norm(f"{name}_bn")(x)
