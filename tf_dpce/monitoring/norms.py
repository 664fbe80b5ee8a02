"""Norms of gradients and weights, and learning rates, by part of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_dpce.models.dual_path import DualPath

Parts = dict[str, list[keras.Variable]]

# Points of a curve within an epoch: about ten, and at least so many steps apart.
_POINTS, _LEAST_STEPS = 10, 10


def trained_parts(model: DualPath) -> Parts:
    """Returns the trained weights of a model by the part that they belong to.

    Example:
        >>> image, text = image_tower("small", None, 64, 32), text_tower(100, output_dim=32)
        >>> list(trained_parts(DualPath(image, text, num_instances=50)))
        ['image_backbone', 'image_head', 'text_tower', 'instance_classifier']
    """
    trained, parts = {id(v) for v in model.trainable_variables}, Parts()
    for name, variable in model.named_variables():
        if id(variable) in trained:
            parts.setdefault(name.split("/")[0], []).append(variable)
    return parts


class GradientNorms:
    """Measures in a training step, of some steps, the norm of the gradient of each part.

    It changes nothing that is trained, and is no part of a checkpoint. Make it in the scope of the
    strategy.

    Args:
        parts: trained weights by part.
        steps_per_epoch: steps of an epoch. At most eleven of them are measured, the last one too.
    """

    def __init__(self, parts: Parts, steps_per_epoch: int) -> None:
        self._every = max(_LEAST_STEPS, steps_per_epoch // _POINTS)
        self._steps_per_epoch = steps_per_epoch
        self._part_of = {
            id(variable.value): number
            for number, variables in enumerate(parts.values())
            for variable in variables
        }
        self._names = list(parts)
        # Every replica has the same sums, and none needs those of another.
        self._squares = tf.Variable(
            tf.zeros([len(parts)]),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def is_measured(self, step: Any) -> Any:
        """Returns whether a step, counted from 1, is measured."""
        return (step % self._steps_per_epoch) % self._every == 0

    def measure(self, step: tf.Tensor, gradients: Sequence[tuple[Any, tf.Variable]]) -> None:
        """Measures a step, counted from 1, by pairs of a summed gradient and its weight."""

        def sums() -> tf.Tensor:
            totals = [tf.constant(0.0)] * len(self._names)
            for gradient, variable in gradients:
                if gradient is not None:
                    square = tf.reduce_sum(tf.square(tf.convert_to_tensor(gradient)))
                    totals[self._part_of[id(variable)]] += square
            return tf.stack(totals)

        nothing = tf.zeros([len(self._names)])
        self._squares.assign(tf.cond(self.is_measured(step), sums, lambda: nothing))

    def values(self) -> dict[str, float]:
        """Returns the norm of each part in the last step, if that was measured."""
        return dict(zip(self._names, tf.sqrt(self._squares).numpy().tolist(), strict=True))


def weight_norms(parts: Parts) -> dict[str, float]:
    """Returns the Euclidean norm of the weights of each part."""
    norms = {name: tf.linalg.global_norm([v.value for v in vs]) for name, vs in parts.items()}
    return {name: float(norm) for name, norm in norms.items()}


def learning_rates(rate: float, multipliers: Mapping[str, float], parts: Parts) -> dict[str, float]:
    """Returns the learning rates of each part; of a part with several, each by its multiplier.

    Args:
        rate: the learning rate of weights without a multiplier.
        multipliers: factors by the path of a weight.
        parts: trained weights by part.
    """
    rates = {}
    for part, variables in parts.items():
        factors = sorted({multipliers.get(variable.path, 1.0) for variable in variables})
        for factor in factors:
            rates[part if len(factors) == 1 else f"{part} x{factor:g}"] = rate * factor
    return rates
