"""In-batch softmax, the loss of later dual encoders (CLIP, ALIGN), for comparison. Pure Keras."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_dpce.losses.batch import Gather, cosines, same_instance, single_replica


def contrastive_loss(
    instance_ids: Any,
    image: Any,
    text: Any,
    temperature: float = 0.05,
    gather: Gather = single_replica,
) -> Any:
    """Returns the in-batch softmax loss: cross-entropy over the global batch in both directions.

    It is `-log softmax(x.y_j / temperature)[own]` over the captions j of the batch, and the same
    over its images; the loss is the mean of both. Rows of the same instance are not negatives of
    each other: they are left out of the sum. It is no loss of the paper: see Radford et al.,
    "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021).

    Args:
        instance_ids: Integers `[B]`.
        image: Unit vectors `[B, D]`.
        text: Unit vectors `[B, D]`.
        temperature: The number above 0 by which cosines are divided.
        gather: A function that gathers the rows of all replicas; see `losses.batch`.

    Returns:
        Floats `[B]`.

    Example:
        >>> image, text = np.eye(2, dtype="float32"), np.ones((2, 2), "float32") / 2**0.5
        >>> loss = contrastive_loss([1, 2], image, text, temperature=1.0)
        >>> [round(float(row), 4) for row in loss]  # ln 2: every caption fits both images
        [0.6931, 0.6931]
    """
    same = same_instance(instance_ids, gather(instance_ids))
    # A row itself is on the diagonal, because `gather` puts own rows first.
    itself = ops.eye(*ops.shape(same), dtype="bool")
    left_out = ops.logical_and(same, ops.logical_not(itself))

    def log_sum(own: Any, others: Any) -> Any:
        scores = cosines(own, others) / temperature
        return ops.logsumexp(ops.where(left_out, -1e9, scores), axis=1)

    positive = ops.sum(image * text, axis=-1) / temperature
    return (log_sum(image, gather(text)) + log_sum(text, gather(image))) / 2 - positive


@keras.saving.register_keras_serializable("tf_dpce")
class ContrastiveLoss(keras.losses.Loss):
    """`contrastive_loss` for `compile`: `y_true` instance ids `[B]`, `y_pred` pairs `[B, 2, D]`.

    Args:
        temperature: The number above 0 by which cosines are divided.
        gather: A function that gathers the rows of all replicas.
        kwargs: Keras's `reduction` and `name`.

    Example:
        >>> pairs = np.full((2, 2, 2), 0.5**0.5, "float32")  # each caption fits both images
        >>> loss = ContrastiveLoss(temperature=1.0)
        >>> round(float(loss(np.array([1, 2]), pairs)), 4)  # ln 2
        0.6931
    """

    def __init__(
        self, temperature: float = 0.05, gather: Gather = single_replica, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.temperature = temperature
        self.gather = gather

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss of each row; Keras averages it over the batch.

        Args:
            y_true: Integers `[B]`, the instance ids.
            y_pred: Unit vectors `[B, 2, D]`, image first: the output `pair`.

        Returns:
            Floats `[B]`.
        """
        return contrastive_loss(y_true, y_pred[:, 0], y_pred[:, 1], self.temperature, self.gather)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that Keras saves; `gather` is not one, since it is a function."""
        return {**super().get_config(), "temperature": self.temperature}
