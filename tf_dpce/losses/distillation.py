"""Similarity distillation: images and captions of a batch are as similar as a teacher has them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_dpce.losses.batch import Gather, cosines, single_replica


def distillation_loss(
    teacher: Any,
    student: Any,
    temperature: float = 0.05,
    teacher_temperature: float = 0.05,
    gather: Gather = single_replica,
) -> Any:
    """Returns how far the similarities of a batch are from a teacher's, in both directions.

    The cosines of an image with all captions of the global batch, divided by a temperature, make a
    softmax, both for the teacher and for the student. The loss is the Kullback-Leibler divergence
    of the student's softmax from the teacher's; the same of a caption with all images; and the mean
    of both. It is 0 if the student has the teacher's similarities, whatever the widths of their
    embeddings are. It is the contrastive relational distillation of Yang et al., "CLIP-KD" (CVPR
    2024); Wu et al., "TinyCLIP" (ICCV 2023), call it affinity mimicking.

    Args:
        teacher: The teacher's embeddings, unit vectors `[B, 2, T]`, image first.
        student: Unit vectors `[B, 2, D]`, image first.
        temperature: The number above 0 by which the student's cosines are divided.
        teacher_temperature: The number above 0 by which the teacher's cosines are divided.
        gather: A function that gathers the rows of all replicas; see `losses.batch`.

    Returns:
        Floats `[B]`, from 0 on.

    Example:
        >>> right = np.stack([np.eye(2, dtype="float32")] * 2, axis=1)
        >>> alike = np.full((2, 2, 3), 3**-0.5, "float32")
        >>> float(distillation_loss(right, right)[0]) == 0.0
        True
        >>> round(float(distillation_loss(right, alike)[0]), 4)  # ln 2: the student sees no change
        0.6931
    """
    teachers, students = gather(teacher), gather(student)

    def divergence(own: int, other: int) -> Any:
        expected = ops.log_softmax(
            cosines(teacher[:, own], teachers[:, other]) / teacher_temperature
        )
        found = ops.log_softmax(cosines(student[:, own], students[:, other]) / temperature)
        return ops.sum(ops.exp(expected) * (expected - found), axis=1)

    return (divergence(0, 1) + divergence(1, 0)) / 2


@keras.saving.register_keras_serializable("tf_dpce")
class DistillationLoss(keras.losses.Loss):
    """`distillation_loss` for `compile`, on the output `distillation` `[B, 2, D]`.

    `y_true` holds the teacher's embeddings of the same images and captions, `[B, 2, T]`.

    Args:
        temperature: The number above 0 by which the student's cosines are divided.
        teacher_temperature: The number above 0 by which the teacher's cosines are divided.
        gather: A function that gathers the rows of all replicas.
        kwargs: Keras's `reduction` and `name`.

    Example:
        >>> from tf_dpce.losses import DistillationLoss
        >>> right = np.stack([np.eye(2, dtype="float32")] * 2, axis=1)
        >>> round(float(DistillationLoss()(right, np.full((2, 2, 2), 0.5**0.5, "float32"))), 4)
        0.6931
    """

    def __init__(
        self,
        temperature: float = 0.05,
        teacher_temperature: float = 0.05,
        gather: Gather = single_replica,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.gather = gather

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss of each row; Keras averages it over the batch.

        Args:
            y_true: Unit vectors `[B, 2, T]`, image first: the teacher's.
            y_pred: Unit vectors `[B, 2, D]`, image first: the output `distillation`.

        Returns:
            Floats `[B]`.
        """
        temperatures = (self.temperature, self.teacher_temperature)
        return distillation_loss(y_true, y_pred, *temperatures, self.gather)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that Keras saves; `gather` is not one, since it is a function."""
        names = ("temperature", "teacher_temperature")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
