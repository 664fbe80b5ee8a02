"""In-batch softmax, the loss of later dual encoders, for comparison."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_dpce.losses.ranking import same_instance


def contrastive_loss(instance_ids: Any, image: Any, text: Any, temperature: float = 0.05) -> Any:
    """Softmax cross-entropy over the batch, the mean of both directions.

    Rows of the same instance are not negatives of one another: they are left out of the sum.

    Args:
        instance_ids: integers `[B]`.
        image: unit vectors `[B, D]`.
        text: unit vectors `[B, D]`.
        temperature: cosines are divided by it.

    Returns:
        Floats `[B]`.
    """
    scores = ops.matmul(image, ops.transpose(text)) / temperature
    itself = ops.eye(ops.shape(scores)[0], dtype="bool")
    twin = ops.logical_and(same_instance(instance_ids), ops.logical_not(itself))
    scores = ops.where(twin, -1e9, scores)
    positive = ops.sum(image * text, axis=-1) / temperature
    to_texts, to_images = ops.logsumexp(scores, axis=1), ops.logsumexp(scores, axis=0)
    return (to_texts + to_images) / 2 - positive


@keras.saving.register_keras_serializable("tf_dpce")
class ContrastiveLoss(keras.losses.Loss):
    """`contrastive_loss` for `compile`: `y_true` instance ids `[B]`, `y_pred` pairs `[B, 2, D]`.

    Under `tf.distribute` a replica sees its slice of the batch alone.

    Args:
        temperature: cosines are divided by it.
        reduction: Keras's.
        name: of the loss.
    """

    def __init__(
        self,
        temperature: float = 0.05,
        reduction: str = "sum_over_batch_size",
        name: str = "contrastive_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.temperature = temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns `[B]`."""
        return contrastive_loss(y_true, y_pred[:, 0], y_pred[:, 1], self.temperature)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}
