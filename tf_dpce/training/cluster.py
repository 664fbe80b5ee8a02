"""The machines of a run, as the environment variable `TF_CONFIG` names them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_dpce.errors import UserError

TF_CONFIG = "TF_CONFIG"
_JOBS = ("chief", "worker")
_EXAMPLE = (
    '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}} '
    "is that of the first of two"
)


@dataclass(frozen=True)
class Cluster:
    """The workers that train one model, and which of them this process is.

    Attributes:
        addresses: `host:port` of each; the first one is the chief.
        index: of this process.
        chiefs: 1 where the first one has a job of its own, else 0.
    """

    addresses: tuple[str, ...]
    index: int
    chiefs: int = 0

    def name(self, index: int) -> str:
        """Returns how a worker is called in a message."""
        return f"worker {index} of {len(self.addresses)} ({self.addresses[index]})"

    def check_devices(self, devices: Sequence[tuple[int, str]]) -> None:
        """Refuses workers of which one has other devices than the chief.

        TensorFlow would leave open what becomes of their sums, and may wait for ever.

        Args:
            devices: of each worker, how many and of which kind.

        Raises:
            UserError: they are not all the same.
        """
        for index, (count, kind) in enumerate(devices):
            if (count, kind) != devices[0]:
                chiefs = "{} {}(s)".format(*devices[0])
                raise UserError(
                    f"{self.name(0)} trains on {chiefs}, {self.name(index)} on {count} {kind}(s): "
                    "give all workers the same number of GPUs, or hide those of all of them by "
                    "CUDA_VISIBLE_DEVICES=-1"
                )

    def others_named(self, message: str) -> list[int]:
        """Returns which other workers a message of TensorFlow is about, in its order."""
        if "CoordinationService/Heartbeat" in message:
            # The chief, whose service it is, did not answer.
            return [0]
        tasks = re.findall(r"/job:(\w+)(?:/replica:0)?/task:(\d+)", message)
        found = [int(n) + (self.chiefs if job == "worker" else 0) for job, n in tasks]
        return [index for index in dict.fromkeys(found) if index != self.index]


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Returns what `TF_CONFIG` says, or None where a process trains alone.

    A job "chief" of one comes before the job "worker"; without it the first worker is the chief.

    Raises:
        UserError: it is not JSON, or does not say which of which workers this process is.
    """
    text = environment.get(TF_CONFIG, "").strip()
    config = _parsed(text) if text else {}
    jobs = config.get("cluster")
    if not jobs:
        return None
    addresses = _addresses(jobs)
    index = _index(config.get("task"), jobs)
    chiefs = len(jobs.get("chief", []))
    return Cluster(addresses, index, chiefs) if len(addresses) > 1 else None


def _parsed(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{TF_CONFIG} is not JSON ({error}): {_EXAMPLE}") from None
    if not isinstance(config, dict):
        raise UserError(f"{TF_CONFIG} is no JSON object: {_EXAMPLE}")
    return config


def _addresses(jobs: Any) -> tuple[str, ...]:
    if not isinstance(jobs, dict):
        raise UserError(f'{TF_CONFIG} has a "cluster" that is no object: {_EXAMPLE}')
    if others := sorted(jobs.keys() - set(_JOBS)):
        raise UserError(f"{TF_CONFIG} has jobs that train does not know: {', '.join(others)}")
    found = [address for job in _JOBS for address in _listed(job, jobs.get(job, []))]
    if len(jobs.get("chief", [])) > 1:
        raise UserError(f"{TF_CONFIG} names more than one chief: make the others workers")
    if double := sorted({address for address in found if found.count(address) > 1}):
        raise UserError(f"{TF_CONFIG} names {double[0]} twice: each worker needs its own address")
    return tuple(found)


def _listed(job: str, addresses: Any) -> list[str]:
    is_list = isinstance(addresses, list) and all(isinstance(a, str) for a in addresses)
    if not is_list or not all(a.rpartition(":")[2].isdigit() and ":" in a for a in addresses):
        raise UserError(f'{TF_CONFIG} needs a list of "host:port" for the job {job}: {_EXAMPLE}')
    return addresses


def _index(task: Any, jobs: Mapping[str, list[str]]) -> int:
    if not isinstance(task, dict) or not {"type", "index"} <= task.keys():
        raise UserError(f'{TF_CONFIG} lacks the "task" with its "type" and "index": {_EXAMPLE}')
    job, text = task["type"], str(task["index"])
    if job not in jobs:
        raise UserError(f"{TF_CONFIG} gives this process the job {job}, which its cluster lacks")
    if not text.isdecimal() or int(text) >= len(jobs[job]):
        raise UserError(
            f"{TF_CONFIG} gives this process the index {text} of the job {job}, which has "
            f"{len(jobs[job])}: the first one is 0"
        )
    before = len(jobs.get("chief", [])) if job == "worker" else 0
    return before + int(text)
