"""The model that a stage fits."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_dpce.models.dual_path import LOGITS, DualPath
from tf_dpce.training.distributed import multi_worker_train_function, spans_workers
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.partial_fc import PartialFC


class DualPathTrainer(DualPath):
    """`DualPath` whose training step may mine hard negatives and sample classes.

    It measures the accuracy of both classifiers, `image_logits_accuracy` and
    `text_logits_accuracy`, as far as they are trained; among the sampled classes, if it samples.

    It shares all layers with the model that it is made of, so that training it trains that model.

    Args:
        model: model to train.
        hard_negatives: replaces the paired captions of a batch, if given.
        partial_fc: restricts the instance loss to the classes of a step, if given. Its classifier
            must be the model's; the optimizer given to `compile` must be built.
    """

    def __init__(
        self,
        model: DualPath,
        hard_negatives: HardNegatives | None = None,
        partial_fc: PartialFC | None = None,
    ) -> None:
        classifier = partial_fc.sampled_classifier if partial_fc else model.classifier
        super().__init__(**model.shared_parts(classifier=classifier))
        self.hard_negatives = hard_negatives
        self.partial_fc = partial_fc

    def compile(
        self, optimizer: keras.optimizers.Optimizer, loss: dict[str, Any], **options: Any
    ) -> None:
        super().compile(optimizer, loss, **options)
        # Not by `metrics` of `compile`, which takes outputs without a target for those of others.
        self.accuracies = {
            name: keras.metrics.Mean(name=f"{name}_accuracy") for name in LOGITS if name in loss
        }
        if self.partial_fc is not None:
            self.partial_fc.build(optimizer)

    def train_step(self, data: tuple[dict, dict]) -> dict[str, Any]:
        inputs, targets = data
        step = tf.cast(self.optimizer.iterations, tf.int64)
        # Mining comes first: the instances of mined captions are among the classes of the batch.
        if self.hard_negatives is not None:
            inputs, targets = self.hard_negatives.replace_paired(self, step, inputs, targets)
        if self.partial_fc is None:
            return super().train_step((inputs, targets))
        ids, targets = self.partial_fc.sample(step, targets)
        self.partial_fc.gather(ids)
        logs = super().train_step((inputs, targets))
        self.partial_fc.scatter(ids)
        return logs

    def compute_metrics(self, x: Any, y: dict, y_pred: dict, sample_weight: Any = None) -> dict:
        for name, accuracy in self.accuracies.items():
            # Keras's own metric of this takes three times as long.
            best = tf.argmax(y_pred[name], axis=1)
            accuracy.update_state(best == tf.cast(y[name], best.dtype))
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def build_metrics(self, spec: tuple[dict, dict]) -> None:
        """Makes the variables of the metrics, which Keras makes when `fit` meets its first batch.

        Args:
            spec: `element_spec` of the batches, (inputs, targets).
        """
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=spec)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if not spans_workers(self.distribute_strategy):
            super()._maybe_symbolic_build(iterator, data_batch)

    def make_train_function(self, force: bool = False) -> None:
        if spans_workers(self.distribute_strategy):
            self.train_function = self.train_function or multi_worker_train_function(self)
        else:
            super().make_train_function(force)
