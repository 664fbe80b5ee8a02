"""Tiny runs over several machines, which are processes that meet on the loopback."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.unit.training.kills import TRAIN, start_python
from tests.unit.training.replicated import FIRST
from tests.unit.training.tiny import arguments


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def tf_config(ports: Sequence[int], index: int) -> str:
    """What the environment of a worker says."""
    workers = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": workers}, "task": task})


def start_workers(
    data: Path,
    runs: Sequence[Path],
    *more: str,
    programs: Sequence[Sequence[str]] | None = None,
    **options: object,
) -> list[subprocess.Popen[str]]:
    """Starts the same run in as many processes as there are folders, each of which gets one.

    In `more`, `{index}` stands for the worker's own. `programs` are theirs, if not `train`.
    """
    ports = free_ports(len(runs))
    workers = []
    for index, run in enumerate(runs):
        own = [part.format(index=index) for part in more]
        program = programs[index] if programs else TRAIN
        environment = {"TF_CONFIG": tf_config(ports, index), "CUDA_VISIBLE_DEVICES": "-1"}
        argv = arguments(data, run, *own, **FIRST | options)
        workers.append(start_python([*program, *argv], **environment))
    return workers
