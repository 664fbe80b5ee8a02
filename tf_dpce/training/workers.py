"""The processes that train one model together, each on a machine of its own.

All of them run the same program in step. The chief alone reads and writes the folder of the run:
what it has read reaches the others over the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.data.input_pipeline import Batches
from tf_dpce.errors import Stopped, UserError
from tf_dpce.training.cluster import Cluster

# What a worker's end, or a broken connection to it, comes as.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


class Workers:
    """A process alone, or one of several that take the same steps.

    Whatever of this class speaks to the others must be called by all of them in the same order.

    Args:
        strategy: of all their devices.
        cluster: None where the process is alone.

    Attributes:
        strategy: the same.
        index: of this process.
        count: of processes.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None = None) -> None:
        self.strategy = strategy
        self.index = cluster.index if cluster else 0
        self.count = len(cluster.addresses) if cluster else 1
        signature = [tf.TensorSpec([None], tf.float32)]
        self._counts = tf.function(self._sum, input_signature=signature)

    @property
    def is_chief(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def any(self, flag: bool) -> bool:
        """Returns whether one of the workers says so."""
        return bool(self._count([flag])[0])

    def of_chief(self, value: np.ndarray) -> np.ndarray:
        """Returns what the chief has; the others give an array of the same shape and dtype."""
        if self.count == 1:
            return value
        return self._sum(tf.constant(value if self.is_chief else np.zeros_like(value))).numpy()

    def each(self, value: float) -> list[float]:
        """Returns what each of the workers has, in their order."""
        if self.count == 1:
            return [value]
        own = np.zeros(self.count, np.float32)
        own[self.index] = value
        return self._counts(tf.constant(own)).numpy().tolist()

    def share(self, variables: Sequence[keras.Variable]) -> None:
        """Gives variables on all workers the values that they have on the chief."""
        for variable in variables if self.count > 1 else ():
            value = self.of_chief(variable.numpy())
            if not self.is_chief:
                variable.assign(value)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Where one of the workers fails within the block, none goes on behind it.

        The block itself must not speak to the others.

        Raises:
            UserError: another one failed.
            Stopped: another one was asked to stop.
        """
        try:
            yield
        except BaseException as error:
            with suppress(*LOST):
                self._count([not isinstance(error, Stopped), isinstance(error, Stopped)])
            raise
        failed, stopped = self._count([False, False])
        if failed:
            raise UserError("another worker has failed: see what it says")
        if stopped:
            raise Stopped("another worker was stopped: the same command with --resume goes on")

    @contextmanager
    def chief_first(self) -> Iterator[None]:
        """The others wait until the chief is through with the block; see `together`."""
        if not self.is_chief:
            self.wait()
        with self.together():
            yield
        if self.is_chief:
            self.wait()

    def wait(self) -> None:
        """Waits until all workers are here; see `together`."""
        with self.together():
            pass

    def batches(self, batches: Batches) -> Batches:
        """Returns batches of this worker's rows, cut so that each of its replicas takes one."""
        if self.count == 1:
            return batches
        rows = keras.tree.flatten(batches.element_spec)[0].shape[0]
        replicas = self.strategy.num_replicas_in_sync // self.count
        cut = batches.rebatch(rows // replicas, drop_remainder=True)
        return self.strategy.distribute_datasets_from_function(lambda context: cut)

    def _count(self, flags: Sequence[bool]) -> list[int]:
        """Returns how many workers say so, of each."""
        counts = tf.constant(flags, tf.float32)
        return [int(c) for c in (self._counts(counts) if self.count > 1 else counts)]

    def _sum(self, value: tf.Tensor) -> tf.Tensor:
        return self.strategy.reduce("SUM", value, axis=None)
