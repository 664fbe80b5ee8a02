"""In-batch softmax, the loss of later dual encoders, for comparison."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_dpce.losses.batch import Gather, alone, cosines, same_instance


def contrastive_loss(
    instance_ids: Any, image: Any, text: Any, temperature: float = 0.05, gather: Gather = alone
) -> Any:
    """Softmax cross-entropy over the global batch, the mean of both directions.

    Rows of the same instance are not negatives of one another: they are left out of the sum.

    Args:
        instance_ids: integers `[B]`.
        image: unit vectors `[B, D]`.
        text: unit vectors `[B, D]`.
        temperature: cosines are divided by it.
        gather: brings the rows of the other replicas.

    Returns:
        Floats `[B]`.
    """
    same = same_instance(instance_ids, gather(instance_ids))
    # A row's own place in the global batch is on the diagonal: `gather` puts own rows first.
    itself = ops.eye(*ops.shape(same), dtype="bool")
    twin = ops.logical_and(same, ops.logical_not(itself))

    def to_all(own: Any, others: Any) -> Any:
        return ops.logsumexp(ops.where(twin, -1e9, cosines(own, others) / temperature), axis=1)

    positive = ops.sum(image * text, axis=-1) / temperature
    return (to_all(image, gather(text)) + to_all(text, gather(image))) / 2 - positive


@keras.saving.register_keras_serializable("tf_dpce")
class ContrastiveLoss(keras.losses.Loss):
    """`contrastive_loss` for `compile`: `y_true` instance ids `[B]`, `y_pred` pairs `[B, 2, D]`.

    Args:
        temperature: cosines are divided by it.
        gather: brings the rows of the other replicas.
        reduction: Keras's.
        name: of the loss.
    """

    def __init__(
        self,
        temperature: float = 0.05,
        gather: Gather = alone,
        reduction: str = "sum_over_batch_size",
        name: str = "contrastive_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.temperature = temperature
        self.gather = gather

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns `[B]`."""
        return contrastive_loss(y_true, y_pred[:, 0], y_pred[:, 1], self.temperature, self.gather)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}
