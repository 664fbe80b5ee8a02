"""Runs as processes of their own, killed at a chosen moment, and what became of them."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.training.tiny import STEPS, arguments

PATIENCE = 400  # seconds until a process that nobody disturbs must have come where it is killed
# The devices must be known before TensorFlow meets them.
_REPLICATED = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
devices = [tf.config.LogicalDeviceConfiguration() for _ in range(int(sys.argv[1]))]
tf.config.set_logical_device_configuration(cpu, devices)
from pipelines.train import main
sys.exit(main(sys.argv[2:]))
"""


def start(
    data: Path, run: Path, *more: str, replicas: int = 1, **options: object
) -> subprocess.Popen[str]:
    """Starts a tiny run that writes a checkpoint after each step."""
    argv = arguments(data, run, "--checkpoint_minutes", "0", *more, **options)
    command = ["-c", _REPLICATED, str(replicas)] if replicas > 1 else ["-m", "pipelines.train"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, *command, *argv],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def progress(run: Path, stage: int) -> dict | None:
    """Where a stage's last checkpoint stands, or None where there is none at this moment."""
    try:
        with np.load(run / "checkpoints" / f"stage{stage}-last.npz") as stored:
            return json.loads(stored["progress"].tobytes())
    except (FileNotFoundError, zipfile.BadZipFile):
        return None


def steps_done(run: Path, stage: int) -> int:
    """Steps of the whole stage that its last checkpoint counts."""
    where = progress(run, stage)
    return where["epoch"] * STEPS + where["step"] if where else 0


def aside(run: Path) -> list[str]:
    """Files that are being written, or were when the process was killed."""
    folder = run / "checkpoints"
    return [name for name in os.listdir(folder) if name.endswith(".tmp")] if folder.exists() else []


def signal_when(
    process: subprocess.Popen[str], moment: Callable[[], bool], number: int = signal.SIGKILL
) -> tuple[str, str]:
    """Sends a signal at a moment, and returns what the process printed until its end."""
    deadline = time.monotonic() + PATIENCE
    while not moment():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the moment did not come"
    process.send_signal(number)
    return process.communicate(timeout=PATIENCE)


def reached(run: Path, stage: int, steps: int, writing: bool = False) -> Callable[[], bool]:
    """Returns what tells whether a stage has come so far, and a checkpoint is being written."""
    return lambda: steps_done(run, stage) >= steps and (not writing or bool(aside(run)))


def kill_often(
    data: Path,
    run: Path,
    kills: Sequence[int],
    steps: int,
    draws: random.Random,
    **options: object,
) -> list[str]:
    """Kills a run in both stages, resumes it each time, and lets it end at last.

    Half of the kills wait for a file that is being written.

    Args:
        data: prepared scenes.
        run: folder of the run.
        kills: how many in stage 1, and how many in stage 2.
        steps: the first ones of each stage, within which it is killed. A process does a few
            more before the kill finds it, so that some must be left over.
        draws: of the moments.
        options: of `start`.

    Returns:
        Files that were being written when the process was killed.
    """
    torn, more = [], []
    for stage, count in enumerate(kills, start=1):
        for target in sorted(draws.sample(range(1, steps), count)):
            moment = max(target, steps_done(run, stage) + 1)
            writing = draws.random() < 0.5
            process = start(data, run, *more, **options)
            signal_when(process, reached(run, stage, moment, writing))
            torn += aside(run)
            more = ["--resume"]
    process = start(data, run, *more, **options)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return torn


def arrays(path: Path) -> dict[str, np.ndarray]:
    """All that a checkpoint holds."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def history(run: Path) -> list[dict[str, str]]:
    """The lines of `history.csv`."""
    with (run / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def differences(expected: Path, found: Path, metrics_rtol: float = 0.0) -> list[str]:
    """Names of all that is not the same, to the last bit, at the end of two runs.

    Args:
        expected: folder of a run.
        found: folder of another.
        metrics_rtol: by how much logged losses, and the sums that they come from, may differ.
    """
    names = []
    for file in [f"stage{n}-{kind}.npz" for n in (1, 2) for kind in ("best", "last")]:
        one, two = (arrays(folder / "checkpoints" / file) for folder in (expected, found))
        assert one.keys() == two.keys()
        for key in one:
            # Means of the losses; the state proper is named by its layer or optimizer.
            close = key.endswith(("loss/total", "loss/count")) and metrics_rtol
            if not _same(_comparable(one[key], key), _comparable(two[key], key), close):
                names.append(f"{file}: {key}")
    for one, two in zip(history(expected), history(found), strict=True):
        for key in one.keys() - {"epoch_seconds", "validation_seconds", "input_share"}:
            close = key.endswith("loss") and one[key] and metrics_rtol
            if one[key] != two[key] and not (close and _same(one[key], two[key], close)):
                names.append(f"history.csv, stage {one['stage']}, epoch {one['epoch']}: {key}")
    return names


def _comparable(value: np.ndarray, name: str) -> Any:
    """A value but for the digest of its run, whose options tell how often it saves."""
    return json.loads(value.tobytes()) | {"run": ""} if name == "progress" else value


def _same(one: Any, two: Any, rtol: float) -> bool:
    if not rtol:
        return one == two if isinstance(one, dict) else np.array_equal(one, two)
    return np.allclose(np.asarray(one, float), np.asarray(two, float), rtol, atol=0.0)
