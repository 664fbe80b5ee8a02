"""Empty places that need not be computed, for a model that is only asked. Pure Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops

from tf_dpce.models.layers import CausalConvolution


def trimming(tower: keras.Model) -> Callable[[Any], Any]:
    """Returns a function that leaves out places which cannot change what a text tower answers.

    A convolution sees no place to its right, and where it sees empty places alone its results are
    all alike. The maximum over all places needs one of these, not every one, so that sentences of
    ten words in a tower of 24 places take half of the work, for the same answer.

    Args:
        tower: a text tower; a recurrent one or a bag of words gets all its places.

    Returns:
        A function from int32 ids `[B, T]` to the first places of them, `[B, T']`. It belongs into
        a graph, where T' is not known: Keras holds a model to the T that it was built with.

    Example:
        >>> tower = text_tower(100, max_length=24, blocks=(2,), widths=(8,))
        >>> trim = trimming(tower)
        >>> trim(np.array([[1, 2, 3] + [0] * 21])).shape
        (1, 6)
        >>> encode = tf.function(lambda ids: tower(trim(ids)))
    """
    table = needed_places(tower)
    if min(table) == len(table) - 1:
        return lambda ids: ids
    places = ops.arange(1, len(table))

    def trim(ids: Any) -> Any:
        filled = ops.max(ops.where(ids > 0, places, 0), initial=0)
        return ids[:, : ops.take(ops.convert_to_tensor(table), filled)]

    return trim


def needed_places(tower: keras.Model) -> tuple[int, ...]:
    """Returns how many places a text tower must see, by the place of the last word, 0 to T."""
    length = tower.input_shape[1]
    pools = sum(isinstance(layer, layers.GlobalMaxPooling1D) for layer in tower.layers)
    convolutions = [layer for layer in tower.layers if isinstance(layer, CausalConvolution)]
    if not (pools and convolutions):
        return (length,) * (length + 1)
    # Members side by side are alike, and take turns among the layers of their tower.
    strides = [layer.strides[0] for layer in convolutions if layer.kernel_size[0] > 1][::pools]
    return tuple(min(length, _needed(words, strides)) for words in range(length + 1))


def _needed(words: int, strides: Sequence[int]) -> int:
    # The first of the places that are all alike. Place t behind a stride s sees t * s and the one
    # before it, both of which must be among them.
    alike, stride = words, 1
    for step in strides:
        alike, stride = -(-(alike + 1) // step), stride * step
    return alike * stride + 1
