"""The instance loss: every image with its captions is a class of its own. Pure Keras."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def instance_loss(instance_ids: Any, logits: Any) -> Any:
    """Returns the softmax cross-entropy over instances (paper section 4).

    It is `-log softmax(logits)[instance]`. The paper sums one such term for each modality, with
    logits from one classifier; its weights of the terms are Keras's `loss_weights`.

    Args:
        instance_ids: Integers `[B]` (or `[B, 1]`), dense from 0 to C - 1.
        logits: Floats `[B, C]`, from the classifier that both modalities share.

    Returns:
        Floats `[B]`.

    Example:
        >>> round(float(instance_loss([1], [[0.0, 0.0]])[0]), 4)  # ln 2, an even bet
        0.6931
    """
    ids = ops.cast(ops.reshape(instance_ids, (-1,)), "int32")
    return ops.sparse_categorical_crossentropy(ids, logits, from_logits=True)


@keras.saving.register_keras_serializable("tf_dpce")
class InstanceLoss(keras.losses.Loss):
    """`instance_loss` for `compile`: `y_true` instance ids `[B]`, `y_pred` logits `[B, C]`.

    Ids are exact up to 2^24, because `keras.losses.Loss` casts them to float32.
    Keras's default reduction, the mean over the batch, is the recipe's.

    Example:
        >>> loss = InstanceLoss()
        >>> round(float(loss(np.array([1, 0]), np.zeros((2, 4)))), 4)  # ln 4, four even chances
        1.3863
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss of each row; Keras averages it over the batch.

        Args:
            y_true: Integers `[B]`, the instance ids, from 0 to C - 1.
            y_pred: Floats `[B, C]`, the logits.

        Returns:
            Floats `[B]`.
        """
        return instance_loss(y_true, y_pred)
