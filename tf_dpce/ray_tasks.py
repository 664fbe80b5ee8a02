"""Runs functions on the machines of a Ray cluster, which gives up no call for a lost machine.

A call is a Ray task: Ray starts it where there is room, starts it again elsewhere if its process or
machine dies, and takes machines that join. Functions are module-level and arguments plain data.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from tf_dpce.errors import UserError, explain_system_error, shorten

# More threads embed hardly faster in one process than in two.
_CPUS = 4
_RETRIES = 3  # of a call whose process or machine dies
_WAITING = 2  # calls that wait for each that runs, so that no process is idle
_SECONDS = 5.0  # to connect
# How TensorFlow is to start, here as in the processes of the cluster.
_FORWARDED = ("TF_CPP", "TF_CPU", "TF_FORCE", "KERAS_BACKEND")


def check_cluster() -> None:
    """Refuses, before any work, to go on without Ray or without the cluster that is named.

    Raises:
        UserError: Ray is not installed, or nothing listens at RAY_ADDRESS.
    """
    if not find_spec("ray"):
        message = "--engine ray needs the package ray: pip install -r requirements-ray.txt"
        raise UserError("ray.package", message)
    address = os.environ.get("RAY_ADDRESS", "").removeprefix("ray://")
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        try:
            _probe(host, int(port))
        except OSError as error:
            reason = getattr(error, "strerror", None) or "it does not speak Ray's protocol"
            message = f"no Ray cluster answers at RAY_ADDRESS={shorten(address)}: {reason}"
            raise UserError("ray.unreachable", f"{message}: start it, or unset that") from None


def _probe(host: str, port: int) -> None:
    """Connects for a moment, because Ray itself would try for many minutes."""
    socket.create_connection((host, port), _SECONDS).close()
    if os.environ.get("RAY_USE_TLS", "0") == "0":
        import grpc

        with grpc.insecure_channel(f"{host}:{port}") as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=_SECONDS)
            except grpc.FutureTimeoutError:
                raise TimeoutError from None


@contextmanager
def connected() -> Iterator[None]:
    """Connects to the cluster at RAY_ADDRESS, or to this machine's, or starts one here.

    Raises:
        UserError: there is none at the address.
    """
    import ray

    variables = {name: v for name, v in os.environ.items() if name.startswith(_FORWARDED)}
    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(
                log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables}
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            message = f"the Ray cluster cannot be used ({shorten(error)}): start it again"
            raise UserError("ray.unreachable", message) from error
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def call_all(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], in_order: bool = False
) -> Iterator[tuple[int, Any]]:
    """Runs `function(threads, *call)` for each call, on all machines of the connected cluster.

    Args:
        function: a function of a module that every machine has; `threads` is the number of cores
            that it may use.
        calls: arguments; they are taken as there is room.
        in_order: whether results come in the order of the calls, not as they are ready.

    Yields:
        The place of a call and its result: a `UserError` of its own is one too, and so is
        "ray.worker_died" of a call whose process died each time.
    """
    import ray

    cpus, gpus = _share(ray.nodes())
    task = ray.remote(_guarded).options(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)
    pending: dict[Any, int] = {}
    try:
        for place, call in enumerate(calls):
            pending[task.remote(function, cpus, *call)] = place
            running = max(1, ray.cluster_resources().get("CPU", 0) // cpus)
            while len(pending) >= (1 + _WAITING) * running:
                yield _next(pending, in_order)
        while pending:
            yield _next(pending, in_order)
    finally:
        for unfinished in pending:
            ray.cancel(unfinished)


@lru_cache
def limit_threads(threads: int) -> None:
    """Makes TensorFlow compute with so many threads, in a process of a call that is to use it."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _next(pending: dict[Any, int], in_order: bool) -> tuple[int, Any]:
    import ray

    waited = [next(iter(pending))] if in_order else list(pending)
    (ready,), _ = ray.wait(waited)
    place = pending.pop(ready)
    try:
        result, mistake = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if "No module named 'tf_dpce'" not in str(error):
            raise
        message = "a machine of the cluster has no tf_dpce: install the same version on all"
        return place, UserError("ray.machine", message)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        message = f"its process died {_RETRIES + 1} times ({shorten(error)})"
        return place, UserError("ray.worker_died", message)
    if mistake is None:
        return place, result
    code, message, path, line = mistake
    return place, UserError(code, message, path, line)


def _guarded(function: Callable[..., Any], *arguments: Any) -> tuple[Any, tuple[Any, ...] | None]:
    """Returns a result, or what a mistake is made of: exceptions lose parts on their way."""
    try:
        return function(*arguments), None
    except Exception as error:
        known = error if isinstance(error, UserError) else explain_system_error(error)
        if known is None:
            raise
        return None, (known.code, known.message, known.path and str(known.path), known.line)


def _share(nodes: list[dict[str, Any]]) -> tuple[int, int]:
    """Returns how many cores and GPUs a call gets: a GPU if there is one, and its share of cores.

    A head node without cores, as Ray advises, gets no calls.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpu = [found for found in alive if found.get("GPU", 0) >= 1 and found.get("CPU", 0) >= 1]
    if with_gpu:
        return max(1, math.floor(min(found["CPU"] / found["GPU"] for found in with_gpu))), 1
    cores = [found["CPU"] for found in alive if found.get("CPU", 0) >= 1]
    return math.floor(min([_CPUS, *cores])), 0
