"""The large-margin ranking loss, with paired negatives (the recipe) or in-batch negatives."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from tf_dpce.losses.batch import Gather, cosines, same_instance, single_replica

# More than any margin plus the widest gap of two cosines: a pair with this score costs nothing.
_NEVER = -1e3


def ranking_loss(
    image: Any, text: Any, image_negative: Any, text_negative: Any, margin: float = 1.0
) -> Any:
    """Returns the ranking loss: a hinge on cosine differences, in both directions (section 4).

    It is `max(0, margin - (x.y - x.y_negative)) + max(0, margin - (x.y - y.x_negative))`.

    Args:
        image: x, unit vectors `[B, D]`.
        text: y, unit vectors `[B, D]`.
        image_negative: A wrong image for each caption, unit vectors `[B, D]`.
        text_negative: A wrong caption for each image, unit vectors `[B, D]`.
        margin: The difference of cosines at which a pair costs nothing.

    Returns:
        Floats `[B]`.

    Example:
        >>> x, y = np.eye(2, dtype="float32")[:1], np.eye(2, dtype="float32")[1:]
        >>> ranking_loss(x, x, y, y).numpy().tolist(), ranking_loss(x, y, x, x).numpy().tolist()
        ([0.0], [3.0])
    """
    positive = ops.sum(image * text, axis=-1)
    wrong_text = ops.sum(image * text_negative, axis=-1)
    wrong_image = ops.sum(text * image_negative, axis=-1)
    return ops.relu(margin - (positive - wrong_text)) + ops.relu(margin - (positive - wrong_image))


def batch_ranking_loss(
    instance_ids: Any, image: Any, text: Any, margin: float = 1.0, gather: Gather = single_replica
) -> Any:
    """Returns `ranking_loss` against the hardest image and caption of the global batch.

    Rows of the same instance are never negatives of each other; a row without any negative has a
    loss of 0. See Faghri et al., "VSE++" (BMVC 2018).

    Args:
        instance_ids: Integers `[B]`.
        image: Unit vectors `[B, D]`.
        text: Unit vectors `[B, D]`.
        margin: The difference of cosines at which a pair costs nothing.
        gather: A function that gathers the rows of all replicas; see `losses.batch`.

    Returns:
        Floats `[B]`, from 0 to 2 * margin + 4.

    Example:
        >>> x = np.eye(2, dtype="float32")
        >>> batch_ranking_loss([1, 2], x, x, margin=1.5).numpy().tolist()  # twice 1.5 - 1
        [1.0, 1.0]
    """
    same = same_instance(instance_ids, gather(instance_ids))
    positive = ops.sum(image * text, axis=-1)
    hardest_text = ops.max(ops.where(same, _NEVER, cosines(image, gather(text))), axis=1)
    hardest_image = ops.max(ops.where(same, _NEVER, cosines(text, gather(image))), axis=1)
    return ops.relu(margin - positive + hardest_text) + ops.relu(margin - positive + hardest_image)


@keras.saving.register_keras_serializable("tf_dpce")
class RankingLoss(keras.losses.Loss):
    """The ranking loss for `compile`: `y_pred` is the output `pair` `[B, 2, D]`, image first.

    With `negatives="batch"`, `y_true` contains instance ids `[B]`. The negatives of each row are
    the hardest image and caption of another instance.

    With `negatives="paired"` (the recipe), `y_true` `[B, 2]` contains instance ids and roles. Role
    `2k` is the anchor of pair k, role `2k + 1` its negative: the image and the caption of that row
    are the negatives of the anchor. The negative's own loss is 0, so that the mean over the batch
    is the authors' sum over anchors divided by the full batch. Because roles are a field of the
    batch, they survive slicing over replicas if an anchor and its negative stay together. An
    anchor without a negative, or with one of its own instance, has a loss of 0: the recipe draws
    negatives from other instances only.

    Args:
        margin: The difference of cosines at which a pair costs nothing; 1 in the paper.
        negatives: "batch" or "paired".
        gather: A function that gathers the rows of all replicas, for "batch".
        kwargs: Keras's `reduction` and `name`.

    Raises:
        ValueError: `negatives` is neither.

    Example:
        >>> x = np.eye(2, dtype="float32")
        >>> loss = RankingLoss(margin=1.5)
        >>> float(loss(np.array([1, 2]), np.stack([x, x], axis=1)))
        1.0
    """

    def __init__(
        self,
        margin: float = 1.0,
        negatives: Literal["batch", "paired"] = "batch",
        gather: Gather = single_replica,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if negatives not in ("batch", "paired"):
            raise ValueError(f"negatives must be 'batch' or 'paired'. Received: {negatives!r}")
        self.margin = margin
        self.negatives = negatives
        self.gather = gather

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss of each row; Keras averages it over the batch.

        Args:
            y_true: Integers: instance ids `[B]`, or with "paired" ids and roles `[B, 2]`.
            y_pred: Unit vectors `[B, 2, D]`, image first: the output `pair`.

        Returns:
            Floats `[B]`.
        """
        image, text = y_pred[:, 0], y_pred[:, 1]
        if self.negatives == "batch":
            return batch_ranking_loss(y_true, image, text, self.margin, self.gather)
        meets = ops.cast(_meets(y_true[:, 0], y_true[:, 1]), image.dtype)
        losses = ranking_loss(
            image, text, ops.matmul(meets, image), ops.matmul(meets, text), self.margin
        )
        return losses * ops.sum(meets, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that Keras saves; `gather` is not one, since it is a function."""
        return {**super().get_config(), "margin": self.margin, "negatives": self.negatives}


def _meets(instance_ids: Any, roles: Any) -> Any:
    """Returns booleans `[B, B]`: whether the row is an anchor and the column its negative."""
    is_anchor = ops.equal(roles % 2, 0)[:, None]
    is_next = ops.equal(roles[:, None] + 1, roles[None, :])
    other = ops.logical_not(same_instance(instance_ids, instance_ids))
    return ops.logical_and(ops.logical_and(is_anchor, is_next), other)
