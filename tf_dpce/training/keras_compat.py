"""What training over machines takes from inside Keras, and nothing else does.

Under `MultiWorkerMirroredStrategy` the `fit` of Keras 3.15 fails in two places: it hands values of
replicas to a symbolic build, and reduces scalar logs along an axis that they lack
(github.com/keras-team/keras/issues/20585). A test holds the source of what is used here, and of
what is got past, against what it was written for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


def fit_over_workers(network: keras.Model, spec: Any) -> None:
    """Makes `fit` and `evaluate` of a compiled network work on several machines.

    Args:
        network: made in the scope of its strategy, its optimizer built.
        spec: `element_spec` of the batches of one replica, after which the metrics are built.
    """
    strategy = network.distribute_strategy
    with strategy.scope():
        network._symbolic_build(data_batch=spec)
    # All is built: the next batch need not be looked at.
    network._maybe_symbolic_build = lambda **_: None
    network.train_function = _step(strategy, network.train_step)
    network.test_function = _step(strategy, network.test_step)


def _step(
    strategy: tf.distribute.Strategy, on_batch: Callable[[Any], dict[str, Any]]
) -> Callable[[Iterator], dict[str, tf.Tensor]]:
    @tf.function(reduce_retracing=True, autograph=False)
    def step(iterator: Iterator) -> dict[str, tf.Tensor]:
        names: list[str] = []

        def on_replica(batch: Any) -> tf.Tensor:
            # The batch of a sole device names none, and what is gathered must.
            logs = on_batch(tf.nest.map_structure(tf.identity, batch))
            names[:] = logs
            # One message to the other machines, not one for each log.
            return tf.stack(list(logs.values()))

        logs = strategy.run(on_replica, args=(next(iterator),))
        return dict(zip(names, tf.unstack(strategy.reduce("MEAN", logs, axis=None)), strict=True))

    return step
