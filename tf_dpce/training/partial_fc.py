"""Sampled softmax after Partial FC (An et al., "Killing Two Birds with One Stone: Efficient and
Robust Training of Face Recognition CNNs by Partial FC", CVPR 2022, arXiv 2203.15565).

The instance loss of a step compares with the classes of the batch and S drawn others. A row of the
classifier that is not drawn neither moves nor decays, and its optimizer slots stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_dpce.data.index_shuffle import permuted
from tf_dpce.models.dual_path import LOGITS, RowClassifier
from tf_dpce.training.optimizers import LayerwiseAdamW, LayerwiseSGD

# The data order folds 0 and 1 into the same seed, hard-negative mining 2.
_STREAM = 3
# Added to the logit of an unused row: its softmax and its gradient are then exactly 0.
_UNUSED = -1e9


@dataclass(frozen=True)
class ClassSample:
    """The classes that one step compares with.

    Attributes:
        positives: int64 `[U]`, the classes of the global batch, each once, ascending.
        ids: int64 `[U + S]`, the positives and then the drawn classes, each once.
    """

    positives: tf.Tensor
    ids: tf.Tensor

    def labels(self, instances: tf.Tensor) -> tf.Tensor:
        """Returns the index in `ids`, int64 `[B]`, of each class int64 `[B]` of the batch."""
        return tf.searchsorted(self.positives, instances, out_type=tf.int64)


@dataclass(frozen=True)
class ClassSampler:
    """Draws the classes of a step as a function of (seed, step, classes of the global batch).

    Every replica draws the same classes. The work depends on S and not on the number of classes: a
    keyed permutation of all classes is evaluated at its first indices only.

    Args:
        num_instances: C, the number of classes.
        negatives: S, the number of classes drawn without replacement among those that the batch
            does not have.
        max_positives: the most different classes that a global batch can have.
        seed: seed of the draws.
    """

    num_instances: int
    negatives: int
    max_positives: int
    seed: int

    @property
    def max_classes(self) -> int:
        """The most classes that a step can have."""
        return self.negatives + self.max_positives

    def __call__(self, step: tf.Tensor, batch_ids: tf.Tensor) -> ClassSample:
        """Returns the sample of a step.

        Args:
            step: int64 scalar.
            batch_ids: int64 `[N]`, the classes of the global batch, repeated or not.
        """
        seed = tf.random.experimental.stateless_fold_in([self.seed, _STREAM], step)
        # Even if every positive is among the drawn classes, S others remain.
        first = tf.range(min(self.max_classes, self.num_instances), dtype=tf.int64)
        drawn = permuted(first, seed, self.num_instances)
        positives = tf.sort(tf.unique(batch_ids).y)
        nearest = tf.minimum(tf.searchsorted(positives, drawn), tf.size(positives) - 1)
        negatives = drawn[tf.gather(positives, nearest) != drawn][: self.negatives]
        return ClassSample(positives, tf.concat([positives, negatives], axis=0))


class SampledClassifier(RowClassifier):
    """The classifier of the classes of one step; a step may leave some of its rows unused.

    `mask` is added to the logits: 0 for a used row, `_UNUSED` for an unused one.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.mask = self.add_weight(
            shape=(self.num_instances,), initializer="zeros", name="mask", trainable=False
        )

    def call(self, features: Any) -> Any:
        """Returns logits `[B, K]` of features `[B, D]`."""
        return super().call(features) + self.mask


class PartialFC:
    """Trains a few rows of a large classifier in each step.

    A step gathers the rows of its classes, with their biases and optimizer slots, into
    `sampled_classifier`. Keras's own training step then trains them like any other weights, and
    `scatter` writes them back. No other row is read or written. Build it, and compile the model
    that trains, in the scope of the strategy: every replica holds a copy of all rows.

    Args:
        classifier: classifier of all classes.
        sampler: draws the classes of each step.
    """

    def __init__(self, classifier: RowClassifier, sampler: ClassSampler) -> None:
        self.sampler = sampler
        self.classifier = classifier
        # It has the name of the whole classifier, because learning rates are chosen by path.
        self.sampled_classifier = SampledClassifier(
            sampler.max_classes,
            classifier.use_bias,
            name=classifier.name,
            dtype=classifier.dtype_policy,
        )
        self.slots: list[keras.Variable] = []
        self._pairs: list[tuple[keras.Variable, keras.Variable]] = []

    def build(self, optimizer: LayerwiseSGD | LayerwiseAdamW) -> None:
        """Makes the optimizer slots of all classes: `slots`, which a run saves and restores.

        Args:
            optimizer: optimizer built over the weights of `sampled_classifier`.
        """
        self.slots, self._pairs = [], []
        weights = [(self.classifier.rows, self.sampled_classifier.rows)]
        if self.classifier.bias is not None:
            weights.append((self.classifier.bias, self.sampled_classifier.bias))
        for table, rows in weights:
            slots = optimizer.slots(rows)
            tables = [
                keras.Variable("zeros", table.shape, "float32", trainable=False, name=slot.name)
                for slot in slots
            ]
            self.slots += tables
            self._pairs += zip([table, *tables], [rows, *slots], strict=True)

    def sample(self, step: tf.Tensor, targets: dict) -> tuple[tf.Tensor, dict]:
        """Draws the classes of a step.

        Args:
            step: int64 scalar.
            targets: targets of this replica; those of "image_logits" and "text_logits" are classes,
                int64 `[B]`.

        Returns:
            The drawn classes, int64 `[K]`, and the targets with labels among them.
        """
        own = {name: targets[name] for name in LOGITS if name in targets}
        all_gather = tf.distribute.get_replica_context().all_gather
        batch_ids = tf.concat([all_gather(ids, axis=0) for ids in own.values()], axis=0)
        sample = self.sampler(step, batch_ids)
        return sample.ids, {**targets, **{name: sample.labels(ids) for name, ids in own.items()}}

    def gather(self, ids: tf.Tensor) -> None:
        """Copies the rows and slots of classes int64 `[K]` into the sampled classifier."""
        size = self.sampled_classifier.num_instances
        unused = size - tf.size(ids)
        # An unused row holds that of class 0, which its mask keeps out of the loss.
        padded = tf.ensure_shape(tf.pad(ids, [[0, unused]]), [size])
        mask = tf.concat([tf.zeros([tf.size(ids)]), tf.fill([unused], _UNUSED)], axis=0)
        rows = [_gather(table, padded) for table, _ in self._pairs]
        targets = [variable for _, variable in self._pairs]
        _update_replicas(_assign, [*targets, self.sampled_classifier.mask], [*rows, mask])

    def scatter(self, ids: tf.Tensor) -> None:
        """Writes the rows and slots of classes int64 `[K]` back."""
        rows = [(ids, variable.value[: tf.size(ids)]) for _, variable in self._pairs]
        _update_replicas(_scatter, [table for table, _ in self._pairs], rows)


def _update_replicas(
    update: Callable[..., None], variables: Sequence[keras.Variable], values: Sequence[Any]
) -> None:
    """Updates each replica's copy of each variable with the value that this replica computed."""

    def merged(strategy: tf.distribute.Strategy, *values: Any) -> None:
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(variable.value, update, args=(value,))

    tf.distribute.get_replica_context().merge_call(merged, args=tuple(values))


def _gather(table: keras.Variable, ids: tf.Tensor) -> tf.Tensor:
    # `tf.gather` would read the whole of a mirrored variable.
    return tf.raw_ops.ResourceGather(resource=table.handle, indices=ids, dtype=table.dtype)


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    variable.assign(value)


def _scatter(table: tf.Variable, update: tuple[tf.Tensor, tf.Tensor]) -> None:
    ids, rows = update
    table.scatter_update(tf.IndexedSlices(rows, ids))
