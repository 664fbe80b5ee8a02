"""Runs as processes of their own, killed at a chosen moment, and what became of them."""

from __future__ import annotations

import csv
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.training.tiny import STEPS, arguments
from tf_dpce.training.checkpoint import best_path, state_paths

PATIENCE = 400  # seconds until a process that nobody disturbs must have come where it is killed
# Seconds from SIGTERM to the end of the process, on a machine that does other things besides; alone
# it takes one or two.
STOPPED_WITHIN = 20
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
# A step that waits for a line, so that whatever is done meanwhile is done while it is in flight.
_HELD = """
import sys
from tf_dpce.training.callbacks import Checkpoints
held = tuple(map(int, sys.argv[1:3]))
def hold(self, batch, logs=None):
    if (self.progress.stage, batch + 1) == held:
        print("held", flush=True)
        sys.stdin.readline()
Checkpoints.on_train_batch_begin = hold
from pipelines.train import main
sys.exit(main(sys.argv[3:]))
"""
TRAIN = ("-m", "pipelines.train")


def held(stage: int, step: int) -> tuple[str, ...]:
    """Returns the program of a run that waits in a step, counted from 1, of a stage's epochs."""
    return ("-c", _HELD, str(stage), str(step))


def start(
    data: Path,
    run: Path,
    *more: str,
    replicas: int = 1,
    program: Sequence[str] = TRAIN,
    **options: object,
) -> subprocess.Popen[str]:
    """Starts a tiny run that writes a checkpoint after each step, unless `options` say else."""
    argv = arguments(data, run, *more, **{"checkpoint_minutes": 0} | options)
    command = ["-c", _REPLICATED, str(replicas)] if replicas > 1 else program
    return start_python([*command, *argv])


def start_python(argv: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Starts a program of Python's; whatever it prints can be read."""
    return subprocess.Popen(
        [sys.executable, *argv],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_held(process: subprocess.Popen[str]) -> None:
    """Waits until a process started with `held` is in its step."""
    for line in process.stdout:
        if line == "held\n":
            return
    raise AssertionError(process.communicate()[1])


def newest(run: Path, stage: int) -> Path | None:
    """A stage's newest state, or None if it has none yet."""
    return next(iter(state_paths(run, stage)), None)


def progress(run: Path, stage: int) -> dict | None:
    """Where a stage's newest state stands, or None if there is none at this moment."""
    path = newest(run, stage)
    try:
        return path and json.loads(arrays(path)["progress"].tobytes())
    except FileNotFoundError:
        return None


def steps_done(run: Path, stage: int) -> int:
    """Steps of the whole stage that its newest state counts."""
    where = progress(run, stage)
    return where["epoch"] * STEPS + where["step"] if where else 0


def aside(run: Path) -> list[str]:
    """Files that are being written, or were when the process was killed."""
    folder = run / "checkpoints"
    return [name for name in os.listdir(folder) if name.endswith(".tmp")] if folder.exists() else []


def kill_when(
    process: subprocess.Popen[str], moment: Callable[[], bool], by: int = signal.SIGKILL
) -> None:
    """Sends a process a signal at a moment and waits for its end."""
    deadline = time.monotonic() + PATIENCE
    while not moment():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.0005)  # writing takes longer, and the process needs the core
    process.send_signal(by)
    process.communicate(timeout=PATIENCE)


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for the end of a process, which must end well."""
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors


def reached(run: Path, stage: int, steps: int, writing: bool = False) -> Callable[[], bool]:
    """Returns what tells whether a stage has come so far, and a checkpoint is being written."""
    # A name is read in a hundredth of the time of a checkpoint, and the process needs the core.
    done = functools.lru_cache(1)(lambda path: steps_done(run, stage))
    return lambda: done(newest(run, stage)) >= steps and (not writing or bool(aside(run)))


@dataclass(frozen=True)
class Kill:
    """How a process ended.

    Attributes:
        by_clock: whether at a moment by the clock, or else while a file was being written.
        torn: files that it left half-written.
    """

    by_clock: bool
    torn: tuple[str, ...]


def kill_often(
    data: Path,
    run: Path,
    kills: tuple[int, int],
    steps: int,
    draws: random.Random,
    seconds: float,
    **options: object,
) -> list[Kill]:
    """Trains with processes that are killed, and resumed by the next one, to the end.

    Every second one is killed at a moment by the clock: starting, resuming, in a step, writing,
    validating, between the stages. The others wait for a file that is being written. One that was
    killed before it had a `config.json` is no run yet: `--resume` starts it anew.

    Args:
        data: prepared scenes.
        run: folder of the run.
        kills: how many in stage 1, and how many in stage 2.
        steps: the first ones of each stage, within which it is killed. A process does a few
            more before the kill finds it, so that some must be left over.
        draws: of the moments.
        seconds: that a run takes which nobody disturbs; moments are uniform over them, but that
            none is waited for past the step at which a process is killed in any case.
        options: of `start`.
    """
    struck: list[Kill] = []
    for stage, count in enumerate(kills, start=1):
        for target in sorted(draws.sample(range(1, steps), count)):
            by_clock = len(struck) % 2 == 0
            next_step = max(target, steps_done(run, stage) + 1)
            step = reached(run, stage, next_step, writing=not by_clock)
            left = set(aside(run))
            process = start(data, run, "--resume", **options)
            end = time.monotonic() + draws.uniform(0, seconds)
            kill_when(
                process, lambda e=end, c=by_clock, s=step: (c and time.monotonic() >= e) or s()
            )
            struck.append(Kill(by_clock, tuple(sorted(set(aside(run)) - left))))
    finish(start(data, run, "--resume", **options))
    return struck


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
    stages = [stage for stage in (1, 2) if newest(expected, stage)]
    for kind, stage in product((best_path, newest), stages):
        file = kind(expected, stage).name
        assert kind(found, stage).name == file
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
