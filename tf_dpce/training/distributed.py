"""Replicas and workers: the devices that train one model, and how processes agree.

A worker is a process, usually on a machine of its own; a replica is a device. All workers run the
same program in step. The chief alone reads and writes the run folder and broadcasts what it read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.data.input_pipeline import Batches
from tf_dpce.errors import Stopped, UserError
from tf_dpce.models.layers import RowDropout

# The errors that TensorFlow raises if another worker ended or does not answer.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


# --- devices --------------------------------------------------------------------------------------


@cache
def mirrored_strategy() -> tf.distribute.MirroredStrategy:
    """Returns the process's strategy over all GPUs of the machine, or over its CPU.

    It is made once: a second one would number its collectives from the start again, and TensorFlow
    refuses numbers that the first one used.
    """
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(devices)


def describe(strategy: tf.distribute.Strategy) -> str:
    """Returns how many replicas a strategy has and on which kind of device."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return f"{strategy.num_replicas_in_sync} replica(s) on {kind}"


# --- replicas -------------------------------------------------------------------------------------


def synchronize_replicas(model: keras.Model) -> None:
    """Makes dropout and BatchNorm of a model act on the global batch.

    Keras gives every replica the same dropout mask, so that N replicas would train another model
    than one. `RowDropout` draws its mask as a function of (seed, step, row of the global batch)
    instead, for which it must know the rows of its replica. Call it in the scope of the strategy,
    before the model is compiled.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return
    for layer in model._flatten_layers():
        if isinstance(layer, RowDropout):
            layer.rows = global_rows
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def global_rows(count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the index in the global batch of this replica's first row, and the batch's size.

    A batch is cut into slices of one size, in the order of the replicas.

    Args:
        count: int32 scalar, the number of this replica's rows.
    """
    context = tf.distribute.get_replica_context()
    if context is None:
        return tf.zeros_like(count), count
    return context.replica_id_in_sync_group * count, context.num_replicas_in_sync * count


def gather_rows(rows: tf.Tensor) -> tf.Tensor:
    """Returns the rows of all replicas `[N * B, ...]`, those of this replica first.

    Gradients flow back to the replica that a row comes from.

    Args:
        rows: rows of this replica, `[B, ...]`.
    """
    context = tf.distribute.get_replica_context()
    # There is no context while Keras builds a model from shapes.
    if context is None or context.num_replicas_in_sync == 1:
        return rows
    first, _ = global_rows(tf.shape(rows)[0])
    return tf.roll(context.all_gather(rows, axis=0), -first, axis=0)


# --- workers --------------------------------------------------------------------------------------


class Workers:
    """The processes that train together; a process that trains alone is its own chief.

    All workers must call the methods that communicate in the same order.

    Args:
        strategy: strategy over the devices of all workers.
        index: index of this process; the chief's is 0.
        count: number of processes.
    """

    def __init__(self, strategy: tf.distribute.Strategy, index: int = 0, count: int = 1) -> None:
        self.strategy = strategy
        self.index = index
        self.count = count
        signature = [tf.TensorSpec([None], tf.float32)]
        self._sum_floats = tf.function(self._sum, input_signature=signature)

    @property
    def is_chief(self) -> bool:
        """Whether this process reads and writes the run folder."""
        return self.index == 0

    def any_true(self, flag: bool) -> bool:
        """Returns whether any worker gave True."""
        return bool(self._count([flag])[0])

    def broadcast(self, value: np.ndarray) -> np.ndarray:
        """Returns the chief's array; the others give one of the same shape and dtype."""
        if self.count == 1:
            return value
        return self._sum(tf.constant(value if self.is_chief else np.zeros_like(value))).numpy()

    def all_gather(self, value: float) -> list[float]:
        """Returns the values of all workers, in their order."""
        if self.count == 1:
            return [value]
        values = np.zeros(self.count, np.float32)
        values[self.index] = value
        return self._sum_floats(tf.constant(values)).numpy().tolist()

    def broadcast_variables(self, variables: Sequence[keras.Variable]) -> None:
        """Gives variables on all workers the values that they have on the chief."""
        for variable in variables if self.count > 1 else ():
            value = self.broadcast(variable.numpy())
            if not self.is_chief:
                variable.assign(value)

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """Ends the block with an error on all workers if it fails on any of them.

        The block itself must not communicate.

        Raises:
            UserError: the block failed on another worker.
            Stopped: another worker was asked to stop.
        """
        try:
            yield
        except BaseException as error:
            with suppress(*LOST):
                self._count([not isinstance(error, Stopped), isinstance(error, Stopped)])
            raise
        failed, stopped = self._count([False, False])
        if failed:
            raise UserError("workers.failed", "another worker has failed: read what it printed")
        if stopped:
            raise Stopped("another worker was stopped: resume with the same command and --resume")

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Runs the block on the chief, and then on the others; see `fail_together`."""
        if not self.is_chief:
            self.barrier()
        with self.fail_together():
            yield
        if self.is_chief:
            self.barrier()

    def barrier(self) -> None:
        """Waits for all workers; see `fail_together`."""
        with self.fail_together():
            pass

    def distribute(self, batches: Batches) -> Batches:
        """Returns batches of this worker's rows cut into one for each of its replicas."""
        if self.count == 1:
            return batches
        rows = keras.tree.flatten(batches.element_spec)[0].shape[0]
        replicas = self.strategy.num_replicas_in_sync // self.count
        cut = batches.rebatch(rows // replicas, drop_remainder=True)
        return self.strategy.distribute_datasets_from_function(lambda context: cut)

    def _count(self, flags: Sequence[bool]) -> list[int]:
        """Returns for each flag on how many workers it is True."""
        counts = tf.constant(flags, tf.float32)
        return [int(c) for c in (self._sum_floats(counts) if self.count > 1 else counts)]

    def _sum(self, value: tf.Tensor) -> tf.Tensor:
        return self.strategy.reduce("SUM", value, axis=None)


# --- two faults of Keras --------------------------------------------------------------------------


def spans_workers(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy is one of several workers."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def multi_worker_train_function(model: keras.Model) -> Callable[[Iterator], dict[str, tf.Tensor]]:
    """Returns what a model's `make_train_function` should make, which `fit` calls for each step.

    It gets past two faults of Keras 3.15: under `MultiWorkerMirroredStrategy` Keras hands values of
    replicas to a symbolic build, and reduces scalar logs along an axis that they do not have
    (github.com/keras-team/keras/issues/20585).
    """
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
