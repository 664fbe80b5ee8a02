"""A pair loss of embeddings that can be cut: their first numbers are embeddings too. Pure Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tf_dpce")
class PrefixLoss(keras.losses.Loss):
    """The mean of a pair loss over whole embeddings and over their first numbers.

    Each prefix is brought to unit length, as it is after it was cut. See Kusupati et al.,
    "Matryoshka Representation Learning" (NeurIPS 2022), which adds the losses up; their mean keeps
    the scale of the loss, and so the weight beside it.

    Args:
        loss: The pair loss: `y_pred` is the output `pair` `[B, 2, D]`.
        prefixes: The lengths of the prefixes, each from 1 to D - 1.
        kwargs: Keras's `reduction` and `name`.

    Example:
        >>> from tf_dpce.losses import ContrastiveLoss
        >>> pair = np.float32([[[1, 0], [1, 0]], [[0, 1], [0, 1]]])
        >>> loss = PrefixLoss(ContrastiveLoss(1.0), [1])
        >>> loss(np.int32([1, 2]), pair).shape
        TensorShape([])
    """

    def __init__(self, loss: keras.losses.Loss, prefixes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss = loss
        self.prefixes = tuple(prefixes)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss of each row over all lengths; Keras averages it over the batch.

        Args:
            y_true: What the loss takes, such as integers `[B]`, the instance ids.
            y_pred: Unit vectors `[B, 2, D]`, image first: the output `pair`.

        Returns:
            Floats `[B]`.
        """
        total = self.loss.call(y_true, y_pred)
        for length in self.prefixes:
            total = total + self.loss.call(y_true, shortened(y_pred, length))
        return total / (1 + len(self.prefixes))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that Keras saves."""
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "prefixes": self.prefixes}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PrefixLoss:
        """Returns the loss of a config.

        Args:
            config: What `get_config` returned.
        """
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def shortened(vectors: Any, length: int) -> Any:
    """Returns the first numbers of vectors `[..., D]`, brought to unit length: `[..., length]`."""
    first = vectors[..., :length]
    squares = ops.sum(ops.square(first), axis=-1, keepdims=True)
    return first * ops.rsqrt(squares + 1e-8)
