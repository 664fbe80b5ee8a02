"""The sampled classifier: each step loads, trains and puts back the rows of a few classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.data.index_shuffle import permuted
from tf_dpce.models.dual_path import DualPath, RowClassifier
from tf_dpce.training.hard_negative_mining import MinedDualPath
from tf_dpce.training.rows import RowStore

# `Order` uses 0 and 1 of the same seed, `Candidates` 2.
_STREAM = 3


@dataclass(frozen=True)
class Sample:
    """The classes of a step.

    Attributes:
        positives: int64 `[U]`, the classes of the global batch, each once, ascending.
        ids: int64 `[U + S]`, those and the drawn ones, each once.
    """

    positives: tf.Tensor
    ids: tf.Tensor

    def places(self, instances: tf.Tensor) -> tf.Tensor:
        """Returns where in `ids` the classes int64 `[B]` of the batch stand."""
        return tf.searchsorted(self.positives, instances, out_type=tf.int64)


class Sampler:
    """Draws the classes of a step: a function of (seed, step) and of the batch's own classes.

    Every replica draws the same ones. The work depends on S, not on the number of classes: a
    keyed permutation of all of them is evaluated at its first places alone.

    Args:
        instances: C, the number of classes.
        negatives: S, classes drawn without replacement among those that no row of the batch has.
        labels: P, the most labels that a step can have.
        seed: of the draws.
    """

    def __init__(self, instances: int, negatives: int, labels: int, seed: int) -> None:
        self.instances = instances
        self.negatives = negatives
        self.labels = labels
        self.seed = seed

    @property
    def places(self) -> int:
        """The most classes that a step can have."""
        return self.negatives + self.labels

    def __call__(self, step: tf.Tensor, labels: tf.Tensor) -> Sample:
        """Returns the sample of a step (int64 scalar) whose global batch has `labels` int64."""
        seed = tf.random.experimental.stateless_fold_in([self.seed, _STREAM], step)
        # Even where every positive is among them, S others remain.
        first = tf.range(min(self.places, self.instances), dtype=tf.int64)
        drawn = permuted(first, seed, self.instances)
        positives = tf.sort(tf.unique(labels).y)
        nearest = tf.minimum(tf.searchsorted(positives, drawn), tf.size(positives) - 1)
        negatives = drawn[tf.gather(positives, nearest) != drawn][: self.negatives]
        return Sample(positives, tf.concat([positives, negatives], axis=0))


@keras.saving.register_keras_serializable("tf_dpce")
class SampledClassifier(RowClassifier):
    """The classifier of the classes of one step, which may leave some of its places empty.

    `absence` is added to the logits: 0, or so far below 0 that an empty place has no share of the
    softmax, and no gradient.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.absence = self.add_weight(
            shape=(self.num_instances,), initializer="zeros", name="absence", trainable=False
        )

    def call(self, features: Any) -> Any:
        """Returns logits `[B, K]` of features `[B, D]`."""
        return super().call(features) + self.absence


class SampledDualPath(DualPath):
    """`DualPath` whose `fit` compares with the classes of the batch and S others.

    Its classifier has one place for each class of a step. Before a step the rows of the classes
    that were drawn are loaded from the whole classifier together with their slots, then Keras's own
    step trains them like any weights, and they are put back.
    """

    sampler: Sampler
    store: RowStore

    @classmethod
    def placing(cls, network: DualPath, places: int) -> SampledDualPath:
        """Returns a network with all weights of another one but those of its classifier."""
        # The name of the whole one, so that the learning rates chosen by path are the same.
        classifier = SampledClassifier(places, network.shared_bias, name=network.classifier.name)
        return cls.sharing(network, classifier=classifier)

    def sample_from(self, classifier: RowClassifier, sampler: Sampler, rates: np.ndarray) -> None:
        """Says which rows the places hold, once the optimizer is there.

        Args:
            classifier: of all classes.
            sampler: draws those of a step.
            rates: float64 `[T]`, the learning rate of every step.
        """
        self.sampler = sampler
        self.store = RowStore(classifier, self.classifier, self.optimizer, rates)

    def train_step(self, data: tuple[dict, dict]) -> dict[str, Any]:
        inputs, targets = data
        step = tf.cast(self.optimizer.iterations, tf.int64)
        sample, placed = self._placed(targets, step)
        self.store.load(sample.ids, step)
        logs = super().train_step((inputs, placed))
        self.store.put_back(sample.ids, step)
        return logs

    def test_step(self, data: tuple[dict, dict]) -> dict[str, Any]:
        # Nothing is loaded, lest it change what a run resumes from: the loss is that of whatever
        # rows the last step left in the places.
        inputs, targets = data
        _, placed = self._placed(targets, tf.cast(self.optimizer.iterations, tf.int64))
        return super().test_step((inputs, placed))

    def _placed(self, targets: dict, step: tf.Tensor) -> tuple[Sample, dict]:
        """Returns the sample of a step, and targets whose classes are their places in it."""
        labels = {name: targets[name] for name in targets if name.endswith("_logits")}
        gather = tf.distribute.get_replica_context().all_gather
        everywhere = tf.concat([gather(ids, axis=0) for ids in labels.values()], axis=0)
        sample = self.sampler(step, everywhere)
        return sample, {**targets, **{name: sample.places(ids) for name, ids in labels.items()}}

    def settle(self) -> None:
        """Brings all rows up to date with the steps done, as the exact classifier's would be."""
        self.store.settle(int(self.optimizer.iterations.numpy()))


class MinedSampledDualPath(MinedDualPath, SampledDualPath):
    """Mines first: the instances of mined captions are then among the classes of the batch."""
