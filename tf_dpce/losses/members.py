"""A pair loss for each of the members that vectors are made of, so that each learns by itself."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tf_dpce")
class MemberLoss(keras.losses.Loss):
    """The mean, over M members side by side, of a pair loss that sees one alone.

    A loss over the whole vectors would train the members as one, which then err alike; each by
    itself errs in its own way, and the mean of their cosines is right more often.

    Args:
        loss: of `y_pred` `[B, 2, D / M]`, unit vectors.
        members: M.
        reduction: Keras's.
        name: of the loss.

    Example:
        >>> MemberLoss(ContrastiveLoss(), members=3)
    """

    def __init__(
        self,
        loss: keras.losses.Loss,
        members: int,
        reduction: str = "sum_over_batch_size",
        name: str = "member_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.loss = loss
        self.members = members

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns `[B]` of pairs `[B, 2, D]`, whose members have the length 1 / sqrt(M) each."""
        parts = ops.split(y_pred * self.members**0.5, self.members, axis=-1)
        return sum(self.loss.call(y_true, part) for part in parts) / self.members

    def get_config(self) -> dict[str, Any]:
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "members": self.members}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MemberLoss:
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})
