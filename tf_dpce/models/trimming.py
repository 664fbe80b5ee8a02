"""Empty token positions that need not be computed in inference mode. Pure Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops

from tf_dpce.models.layers import CausalConvolution


def trimming(tower: keras.Model) -> Callable[[Any], Any]:
    """Returns a function that leaves out positions which cannot change a text tower's feature.

    A convolution sees no position to its right, and its results over empty positions are all
    alike. The maximum over all positions needs one of these, not every one, so that captions of
    ten words in a tower of 24 positions take half of the work for the same feature.

    Args:
        tower: A text tower; a recurrent one or a bag of words gets all its positions.

    Returns:
        A function from int32 ids `[B, T]` to their first positions `[B, T']`. Call it within a
        graph, where T' is not known: Keras holds a model to the T that it was built with.

    Example:
        >>> tower = text_tower(100, max_length=24, blocks=(2,), widths=(8,))
        >>> trim = trimming(tower)
        >>> trim(np.array([[1, 2, 3] + [0] * 21])).shape
        (1, 6)
        >>> encode = tf.function(lambda ids: tower(trim(ids)))
    """
    table = needed_positions(tower)
    if min(table) == len(table) - 1:
        return lambda ids: ids
    positions = ops.arange(1, len(table))

    def trim(ids: Any) -> Any:
        last_word = ops.max(ops.where(ids > 0, positions, 0), initial=0)
        return ids[:, : ops.take(ops.convert_to_tensor(table), last_word)]

    return trim


def needed_positions(tower: keras.Model) -> tuple[int, ...]:
    """Returns how many positions a text tower must see, if the last word is the 0th to Tth."""
    length = tower.input_shape[1]
    pools = any(isinstance(layer, layers.GlobalMaxPooling1D) for layer in tower.layers)
    convolutions = [layer for layer in tower.layers if isinstance(layer, CausalConvolution)]
    if not (pools and convolutions):
        return (length,) * (length + 1)
    # The shortcuts, of kernel 1, see what the convolutions beside them see.
    shapes = [(c.kernel_size[0], c.strides[0]) for c in convolutions if c.kernel_size[0] > 1]
    return tuple(min(length, _needed(words, shapes)) for words in range(length + 1))


def _needed(words: int, shapes: Sequence[tuple[int, int]]) -> int:
    # `alike` is the first of the positions whose results are all alike. Behind a kernel k with a
    # stride s, position t sees t * s and the k - 1 before it, all of which must be alike.
    alike, stride = words, 1
    for kernel, step in shapes:
        alike, stride = -(-(alike + kernel - 1) // step), stride * step
    return alike * stride + 1
