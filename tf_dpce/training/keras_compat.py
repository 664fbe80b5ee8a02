"""Gets past two faults of Keras 3.15 in `fit` over several workers.

Under `MultiWorkerMirroredStrategy` Keras hands values of replicas to a symbolic build, and reduces
scalar logs along an axis that they do not have (github.com/keras-team/keras/issues/20585).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


def spans_workers(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy is one of several workers."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def multi_worker_train_function(
    model: keras.Model,
) -> Callable[[Iterator], dict[str, tf.Tensor]]:
    """Returns what a model's `make_train_function` should make, which `fit` calls for each step."""
    strategy = model.distribute_strategy

    @tf.function(reduce_retracing=True, autograph=False)
    def train_function(iterator: Iterator) -> dict[str, tf.Tensor]:
        names: list[str] = []

        def on_replica(batch: Any) -> tf.Tensor:
            # With one device a worker's batch is on no device, and all_gather needs one.
            logs = model.train_step(tf.nest.map_structure(tf.identity, batch))
            names[:] = logs
            # Stacked, because that is one message to the other workers, not one for each log.
            return tf.stack(list(logs.values()))

        logs = strategy.run(on_replica, args=(next(iterator),))
        return dict(zip(names, tf.unstack(strategy.reduce("MEAN", logs, axis=None)), strict=True))

    return train_function
