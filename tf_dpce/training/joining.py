"""How workers meet, and what is said where one of them is lost.

TensorFlow's coordination service, which the chief runs, notices that by heartbeats: after 10
seconds the chief, and after 30 the others.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import tensorflow as tf

from tf_dpce.errors import UserError
from tf_dpce.training.cluster import TF_CONFIG, Cluster, read_cluster
from tf_dpce.training.strategy import make_strategy
from tf_dpce.training.workers import LOST, Workers

# Of the group of all workers and of its first message; TensorFlow counts its own from 1.
_KEY = 1_000_000
_KINDS = ("CPU", "GPU")


@contextmanager
def joined(say: Callable[[str], None]) -> Iterator[Workers]:
    """Yields the workers that `TF_CONFIG` names, once all of them are there.

    Several must meet before TensorFlow does anything else in this process, each with as many
    devices of the same kind.

    Args:
        say: called with a line before they are awaited.

    Raises:
        UserError: `TF_CONFIG` is wrong, the devices are not the same, or another worker was lost,
            within the block as well.
    """
    cluster = read_cluster(os.environ)
    if cluster is None:
        yield Workers(make_strategy())
        return
    say(f"{cluster.name(cluster.index)}: waiting until all are there")
    with _told_of_loss(cluster):
        with _own_signals():
            strategy = _meet(cluster)
            _check_devices(cluster, strategy)
        workers = Workers(strategy, cluster)
        yield workers
        # Who ends first is lost to those that still read the last values.
        with suppress(*LOST):
            workers.wait()


def _meet(cluster: Cluster) -> tf.distribute.Strategy:
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.UnknownError as error:
        address = cluster.addresses[cluster.index]
        raise UserError(
            f"cannot listen at {address} ({error.message}): is the port taken?"
        ) from None
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise UserError(
            f"{TF_CONFIG} names several workers, which only `train` as a program of its own can "
            f"be: unset {TF_CONFIG} for anything else"
        ) from None


def _check_devices(cluster: Cluster, strategy: tf.distribute.Strategy) -> None:
    own = strategy.extended.worker_devices
    kind = tf.DeviceSpec.from_string(own[0]).device_type
    counts = np.zeros((len(cluster.addresses), len(_KINDS)), np.int32)
    counts[cluster.index, _KINDS.index(kind)] = len(own)
    found = _sum(counts, _KEY)
    try:
        cluster.check_devices([(int(row.max()), _KINDS[int(row.argmax())]) for row in found])
    except UserError:
        # Who ends first is lost to those that still read.
        with suppress(*LOST):
            _sum(counts, _KEY + 1)
        raise


def _sum(value: np.ndarray, key: int) -> np.ndarray:
    """Returns the sum over all workers.

    Not by the strategy: where one worker has a single device and another has several, each would
    wait for the other in a group of its own, for ever.

    Args:
        value: int32 `[workers, ...]`.
        key: of this sum, the same on all workers.
    """
    with tf.device("CPU:0"):
        return tf.raw_ops.CollectiveReduce(
            input=value,
            group_size=len(value),
            group_key=_KEY,
            instance_key=key,
            merge_op="Add",
            final_op="Id",
            subdiv_offsets=[0],
        ).numpy()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps TensorFlow from taking SIGTERM for itself; while workers are awaited, signals end all.

    Python's handlers would not run before the last worker is there.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _told_of_loss(cluster: Cluster) -> Iterator[None]:
    try:
        yield
    except LOST as error:
        found = cluster.others_named(error.message)
        raise UserError(
            f"{cluster.name(found[0]) if found else 'another worker'} has ended or does not "
            "answer: see what it says, then start all workers again with --resume"
        ) from None
