"""Starts the workers that the environment variable `TF_CONFIG` names, and notices a lost one.

TensorFlow's coordination service, which the chief runs, notices a lost worker by heartbeats: the
chief fails after 10 seconds, the others after 30.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tf_dpce.errors import UserError
from tf_dpce.logging import current_context, logger, run_context, silent_display
from tf_dpce.training.distributed import LOST, Workers, mirrored_strategy

# Key of the group of all workers and of its first collective; TensorFlow counts its own from 1.
_KEY = 1_000_000
_EXAMPLE = (
    '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}} '
    "is that of the first of two"
)
_ADDRESS = re.compile(r".*:\d+")


@dataclass(frozen=True)
class Cluster:
    """The workers that train one model, and which of them this process is.

    Attributes:
        addresses: `host:port` of each worker; the first is the chief's.
        index: index of this process.
        chiefs: 1 if the chief has a job of its own in `TF_CONFIG`, else 0.
    """

    addresses: tuple[str, ...]
    index: int
    chiefs: int = 0

    def name(self, index: int) -> str:
        """Returns what messages call a worker."""
        return f"worker {index} of {len(self.addresses)} ({self.addresses[index]})"

    def check_devices(self, devices: Sequence[str]) -> None:
        """Refuses workers that do not have the same devices.

        TensorFlow's collectives would wait for ever, or sum what does not belong together.

        Args:
            devices: for each worker, how many devices and of which kind.

        Raises:
            UserError: a worker has other devices than the chief.
        """
        for index, others in enumerate(devices):
            if others != devices[0]:
                raise UserError(
                    "workers.devices",
                    f"{self.name(0)} trains on {devices[0]}, {self.name(index)} on {others}: "
                    "give all workers the same number of GPUs, or hide those of all of them with "
                    "CUDA_VISIBLE_DEVICES=-1",
                )

    def others_in(self, message: str) -> list[int]:
        """Returns the other workers that an error message of TensorFlow names, in its order."""
        if "CoordinationService/Heartbeat" in message:
            # The chief, which runs that service, did not answer.
            return [0]
        tasks = re.findall(r"/job:(\w+)(?:/replica:0)?/task:(\d+)", message)
        found = [int(n) + (self.chiefs if job == "worker" else 0) for job, n in tasks]
        return [index for index in dict.fromkeys(found) if index != self.index]


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Returns the cluster that `TF_CONFIG` describes, or None if the process trains alone.

    TensorFlow's `TFConfigClusterResolver` accepts almost any text and fails later, or waits for
    workers that do not exist; therefore everything is checked here.

    Args:
        environment: environment variables.

    Raises:
        UserError: `TF_CONFIG` is not JSON, or does not say which of which workers this process is.
    """
    try:
        config = json.loads(environment.get("TF_CONFIG", "").strip() or "{}")
        jobs = config.get("cluster")
        if not jobs:
            return None
        chiefs = jobs.get("chief", [])
        addresses = (*chiefs, *jobs.get("worker", []))
        job, index = config["task"]["type"], int(str(config["task"]["index"]))
        valid = (
            jobs.keys() <= {"chief", "worker"}
            and all(_ADDRESS.fullmatch(address) for address in addresses)
            and len(chiefs) < 2
            and len(set(addresses)) == len(addresses)
            and 0 <= index < len(jobs[job])
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise UserError(
            "workers.tf_config",
            'TF_CONFIG must be JSON with a "cluster" of the jobs "worker" and, at most once, '
            '"chief", of different addresses "host:port", and the "task" of this process: '
            f"{_EXAMPLE}",
        )
    if len(addresses) == 1:
        return None
    return Cluster(addresses, index + (len(chiefs) if job == "worker" else 0), len(chiefs))


@contextmanager
def join_workers() -> Iterator[Workers]:
    """Yields the workers that `TF_CONFIG` names, once all of them have started.

    It must come before anything else that TensorFlow does in this process. Within the block the
    others than the chief log errors alone.

    Raises:
        UserError: `TF_CONFIG` is wrong, the workers' devices differ, or another worker was lost,
            at the start or within the block.
    """
    cluster = read_cluster(os.environ)
    if cluster is None:
        yield Workers(mirrored_strategy())
        return
    logger.info(f"{cluster.name(cluster.index)}: waiting until all workers have started")
    level = logger.level
    try:
        with _default_signals():
            strategy = _start(cluster)
            _check_devices(cluster, strategy)
        workers = Workers(strategy, cluster.index, len(cluster.addresses))
        display = current_context().display
        if not workers.is_chief:
            logger.setLevel(logging.ERROR)
            display = silent_display
        with run_context(display=display):
            yield workers
        # A worker that ends is lost to others that still read the last values.
        with suppress(*LOST):
            workers.barrier()
    except LOST as error:
        others = cluster.others_in(error.message)
        raise UserError(
            "workers.lost",
            f"{cluster.name(others[0]) if others else 'another worker'} has ended or does not "
            "answer: read what it printed, then start all workers again with --resume",
        ) from None
    finally:
        logger.setLevel(level)


def _start(cluster: Cluster) -> tf.distribute.Strategy:
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.UnknownError as error:
        address = cluster.addresses[cluster.index]
        raise UserError(
            "workers.address", f"cannot listen at {address} ({error.message}): is the port taken?"
        ) from None
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise UserError(
            "workers.start",
            "TF_CONFIG names several workers, and only the verb `train` can be one of them: unset "
            "TF_CONFIG for anything else",
        ) from None


def _check_devices(cluster: Cluster, strategy: tf.distribute.Strategy) -> None:
    own = strategy.extended.worker_devices
    kind = tf.DeviceSpec.from_string(own[0]).device_type
    # How many GPUs each worker has, or, below zero, how many CPUs.
    counts = np.zeros(len(cluster.addresses), np.int32)
    counts[cluster.index] = len(own) if kind == "GPU" else -len(own)
    found = _sum_over_workers(counts, _KEY)
    try:
        cluster.check_devices([f"{abs(n)} {'GPU' if n > 0 else 'CPU'}(s)" for n in found])
    except UserError:
        # A worker that ends is lost to others that still read.
        with suppress(*LOST):
            _sum_over_workers(counts, _KEY + 1)
        raise


def _sum_over_workers(value: np.ndarray, key: int) -> np.ndarray:
    """Returns the sum of int32 `[workers]` over all workers.

    It is no collective of the strategy: if one worker has a single device and another has several,
    each waits in a group of its own, for ever.
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
def _default_signals() -> Iterator[None]:
    """Lets SIGTERM and SIGINT end the process while it waits for the other workers.

    Python's handlers would not run before the last worker is there, and TensorFlow would take
    SIGTERM for itself.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
