"""The large-margin ranking loss, with given negatives (the recipe) or those of the batch."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_dpce.losses.batch import Gather, alone, cosines, same_instance

# More than any margin plus the widest gap of two cosines, so that what it is taken from never
# violates a margin.
_FAR = 1e3


def ranking_loss(
    image: Any, text: Any, image_negative: Any, text_negative: Any, margin: float = 1.0
) -> Any:
    """Hinge on cosine gaps, in both directions (paper section 4; the authors' `RankLoss`).

    `max(0, margin - (x.y - x.y_negative)) + max(0, margin - (x.y - y.x_negative))`

    Args:
        image: x, unit vectors `[B, D]`.
        text: y, unit vectors `[B, D]`.
        image_negative: a wrong image for each text, unit vectors `[B, D]`.
        text_negative: a wrong text for each image, unit vectors `[B, D]`.
        margin: the gap to reach.

    Returns:
        Floats `[B]`.
    """
    positive = ops.sum(image * text, axis=-1)
    wrong_text = ops.sum(image * text_negative, axis=-1)
    wrong_image = ops.sum(text * image_negative, axis=-1)
    return ops.relu(margin - (positive - wrong_text)) + ops.relu(margin - (positive - wrong_image))


def batch_ranking_loss(
    instance_ids: Any, image: Any, text: Any, margin: float = 1.0, gather: Gather = alone
) -> Any:
    """`ranking_loss` against the hardest image and text of the global batch.

    Rows of the same instance are never negatives of one another; a row without any negative
    costs nothing.

    Args:
        instance_ids: integers `[B]`.
        image: unit vectors `[B, D]`.
        text: unit vectors `[B, D]`.
        margin: the gap to reach.
        gather: brings the rows of the other replicas.

    Returns:
        Floats `[B]`.
    """
    same = same_instance(instance_ids, gather(instance_ids))
    positive = ops.sum(image * text, axis=-1)
    hardest_text = ops.max(ops.where(same, -_FAR, cosines(image, gather(text))), axis=1)
    hardest_image = ops.max(ops.where(same, -_FAR, cosines(text, gather(image))), axis=1)
    return ops.relu(margin - positive + hardest_text) + ops.relu(margin - positive + hardest_image)


@keras.saving.register_keras_serializable("tf_dpce")
class RankingLoss(keras.losses.Loss):
    """The ranking loss for `compile`, over `pair` `[B, 2, D]` (image first).

    With `negatives="batch"`, `y_true` is instance ids `[B]`, and each row meets the hardest
    image and text of another instance.

    With `negatives="paired"` (the recipe), `y_true` is `[B, 2]`: instance id and role. Role `2k`
    is the anchor pair k, role `2k + 1` its negative; a negative lends its image and its text
    to its anchor and costs nothing itself, so that the mean over the batch is the authors' sum
    over anchors divided by the full batch. Being a field of the batch, roles survive slicing
    over replicas as long as an anchor and its negative stay together. An anchor without a
    negative, or with one of its own instance, costs nothing: the recipe draws negatives from
    other instances only.

    Args:
        margin: the gap to reach; 1 in the paper.
        negatives: "batch" or "paired".
        gather: brings the rows of the other replicas, where negatives are those of the batch.
        reduction: Keras's.
        name: of the loss.
    """

    def __init__(
        self,
        margin: float = 1.0,
        negatives: str = "batch",
        gather: Gather = alone,
        reduction: str = "sum_over_batch_size",
        name: str = "ranking_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        if negatives not in ("batch", "paired"):
            raise ValueError(f"negatives must be 'batch' or 'paired'. Received: {negatives!r}")
        self.margin = margin
        self.negatives = negatives
        self.gather = gather

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns `[B]`."""
        image, text = y_pred[:, 0], y_pred[:, 1]
        if self.negatives == "batch":
            return batch_ranking_loss(y_true, image, text, self.margin, self.gather)
        borrows = ops.cast(_borrows(y_true[:, 0], y_true[:, 1]), image.dtype)
        losses = ranking_loss(
            image, text, ops.matmul(borrows, image), ops.matmul(borrows, text), self.margin
        )
        return losses * ops.sum(borrows, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "negatives": self.negatives}


def _borrows(instance_ids: Any, roles: Any) -> Any:
    """Returns booleans `[B, B]`: whether the row is an anchor and the column its negative."""
    is_anchor = ops.equal(roles % 2, 0)[:, None]
    is_next = ops.equal(roles[:, None] + 1, roles[None, :])
    other = ops.logical_not(same_instance(instance_ids, instance_ids))
    return ops.logical_and(ops.logical_and(is_anchor, is_next), other)
