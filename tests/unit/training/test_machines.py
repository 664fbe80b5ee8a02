"""Workers on several machines train the model that one process would: real processes that meet."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.errors import printed_code
from tests.unit.training.alike import assert_same_history, assert_same_stage
from tests.unit.training.kills import (
    PATIENCE,
    STOPPED_WITHIN,
    TRAIN,
    await_held,
    differences,
    held,
    progress,
    start_python,
)
from tests.unit.training.machines import free_ports, start_workers, tf_config
from tests.unit.training.replicated import FIRST, TURNED
from tests.unit.training.tiny import arguments, run_tiny
from tf_dpce.config import Config

# Heartbeats are missed after 10 seconds by the chief, and after 30 by the others.
MINUTE = 60


def ended(processes: Sequence[subprocess.Popen[str]], within: float) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of each."""
    deadline = time.monotonic() + within
    try:
        answers = [p.communicate(timeout=deadline - time.monotonic()) for p in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *answer) for p, answer in zip(processes, answers, strict=True)]


def trained(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """Stdout and stderr of processes that must end well."""
    answers = ended(processes, PATIENCE)
    assert [status for status, _, _ in answers] == [0] * len(answers), answers
    return [(out, err) for _, out, err in answers]


@pytest.mark.process
@pytest.mark.sentinel
def test_two_workers_train_as_one_process_does_and_the_chief_alone_writes(
    scenes: Path, one_replica: Callable[[str], Path], tmp_path: Path
):
    # 48 images in batches of 8: 12 steps, with dropout and the negatives of both workers.
    two, none = tmp_path / "two", tmp_path / "none"
    (chief, log), (other, other_log) = trained(start_workers(scenes, [two, none], stage2__epochs=0))
    assert "2 replica(s) on CPU" in chief + log and str(two / "history.csv") in chief
    # The other one says that it waits, and nothing else; TensorFlow's own lines do not count.
    lines = [line for line in other_log.splitlines() if not re.match(r"WARNING: |[IW]\d{4} ", line)]
    assert other == "" and len(lines) == 1 and lines[0].startswith("worker 1 of 2 ")
    assert not none.exists()
    assert_same_stage(two, one_replica("first"), 1)
    assert_same_history(two, one_replica("first"))


# --- death and resumption -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages by two workers."""
    folder = tmp_path_factory.mktemp("machines")
    trained(start_workers(scenes, [folder / "run", folder / "none"]))
    return folder / "run"


@pytest.fixture
def disturbed(scenes: Path, tmp_path: Path) -> Iterator[Callable[..., list]]:
    """Starts two workers, waits until a stage has done so many steps of 12, and returns them."""
    started = []

    def start(stage: int, steps: int, *more: str) -> list[subprocess.Popen[str]]:
        runs = [tmp_path / "run", tmp_path / "none"]
        workers = start_workers(scenes, runs, "--checkpoint_minutes", "0", *more)
        started.extend(workers)
        deadline = time.monotonic() + PATIENCE
        while done(tmp_path / "run", stage) < steps:
            assert all(worker.poll() is None for worker in workers), ended(workers, 0)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return workers

    yield start
    for process in started:
        process.kill()
        process.communicate()


def done(run: Path, stage: int) -> int:
    where = progress(run, stage)
    return 6 * where["epoch"] + where["step"] if where else 0


@pytest.mark.slow
def test_mined_negatives_and_all_are_those_of_one_process(
    undisturbed: Path, one_replica: Callable[[str], Path]
):
    assert_same_training(undisturbed, one_replica("both"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "stages"), [({"model__sampled_negatives": 7}, (1, 2)), (TURNED, (1,))]
)
def test_the_rows_of_a_sampled_classifier_and_turned_copies_are_those_of_one_process(
    scenes: Path, tmp_path: Path, options: dict[str, object], stages: tuple[int, ...]
):
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_tiny(scenes, one, **FIRST | options) == 0
    trained(start_workers(scenes, [two, tmp_path / "none"], **options))
    assert_same_training(two, one, stages)


def assert_same_training(found: Path, expected: Path, stages: Sequence[int] = (1, 2)) -> None:
    for stage in stages:
        assert_same_stage(found, expected, stage)
    assert_same_history(found, expected)


@pytest.mark.slow
def test_killed_workers_resume_to_the_last_bit(
    undisturbed: Path, disturbed: Callable[..., list], scenes: Path, tmp_path: Path
):
    chief, other = disturbed(1, 4)
    other.kill()
    [(status, _, stderr)] = ended([chief], MINUTE)
    assert (status, printed_code(stderr)) == (1, "workers.lost") and "worker 1 of 2" in stderr

    chief, other = disturbed(1, 9, "--resume")
    chief.kill()
    [(status, _, stderr)] = ended([other], MINUTE)
    assert (status, printed_code(stderr)) == (1, "workers.lost")
    assert "worker 0 of 2" in stderr.splitlines()[-1]

    again = ("--checkpoint_minutes", "0", "--resume")
    trained(start_workers(scenes, [tmp_path / "run", tmp_path / "none"], *again))
    # Sums of the losses are cut into parts, one for each replica, where they are restored.
    assert differences(undisturbed, tmp_path / "run", metrics_rtol=1e-6) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_any_worker_may_be_asked_to_stop_and_the_step_in_flight_is_written(
    undisturbed: Path, scenes: Path, tmp_path: Path
):
    runs, minutes = [tmp_path / "run", tmp_path / "none"], Config().checkpoint_minutes
    programs = [TRAIN, held(1, 4)]
    workers = start_workers(scenes, runs, programs=programs, checkpoint_minutes=minutes)
    await_held(workers[1])
    assert not (tmp_path / "run/checkpoints").exists(), "three steps are done, and none is written"
    workers[1].send_signal(signal.SIGTERM)
    workers[1].stdin.write("go on\n")
    workers[1].stdin.flush()
    answers = ended(workers, STOPPED_WITHIN)
    assert [status for status, _, _ in answers] == [75, 75]
    assert all("stopped in stage 1" in stderr.splitlines()[-1] for _, _, stderr in answers)
    assert done(tmp_path / "run", 1) == 4
    trained(start_workers(scenes, runs, "--resume", checkpoint_minutes=minutes))
    assert differences(undisturbed, tmp_path / "run", metrics_rtol=1e-6) == []


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_worker_that_freezes_ends_the_other(disturbed: Callable[..., list], frozen: int):
    workers = disturbed(1, 2)
    workers[frozen].send_signal(signal.SIGSTOP)
    [(status, _, stderr)] = ended([workers[1 - frozen]], MINUTE)
    assert (status, printed_code(stderr)) == (1, "workers.lost")
    assert f"worker {frozen} of 2" in stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_mistake_of_one_worker_ends_all(scenes: Path, tmp_path: Path):
    full, none = tmp_path / "full", tmp_path / "none"
    (full / "folder").mkdir(parents=True)
    for runs, more, codes in (
        ([full, none], (), ("run.not_empty", "workers.failed")),
        # Other options than the chief's.
        ([none, none], ("--seed", "{index}"), ("workers.failed", "workers.differ")),
    ):
        answers = ended(start_workers(scenes, runs, *more), PATIENCE)
        assert tuple(printed_code(stderr) for _, _, stderr in answers) == codes
        assert [status for status, _, _ in answers] == [1, 1] and not none.exists()


@pytest.mark.process
def test_a_taken_port_is_refused(scenes: Path, tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = tf_config([taken.getsockname()[1], *free_ports(1)], index=0)
        argv = arguments(scenes, tmp_path / "run", **FIRST)
        worker = start_python([*TRAIN, *argv], TF_CONFIG=config, CUDA_VISIBLE_DEVICES="-1")
        [(status, _, stderr)] = ended([worker], PATIENCE)
    assert (status, printed_code(stderr)) == (1, "workers.address")


# TensorFlow gives a worker one CPU, however many logical ones there are.
_DEVICES = """
import sys
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy
count = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
def devices(self, resolver, worker):
    return tuple(f"{worker}/device:CPU:{place}" for place in range(count)), "CPU"
collective_all_reduce_strategy.CollectiveAllReduceExtended._initialize_local_devices = devices
from pipelines.train import main
sys.exit(main(sys.argv[2:]))
"""


# Where one worker has one device and another has several, TensorFlow's own sums wait for ever.
@pytest.mark.slow
@pytest.mark.parametrize("counts", [(2, 1), (1, 2), (2, 4)])
def test_workers_of_other_devices_are_refused(
    scenes: Path, tmp_path: Path, counts: tuple[int, int]
):
    runs = [tmp_path / "run", tmp_path / "none"]
    programs = [("-c", _DEVICES, str(count)) for count in counts]
    answers = ended(start_workers(scenes, runs, programs=programs), PATIENCE)
    for status, _, stderr in answers:
        assert (status, printed_code(stderr)) == (1, "workers.devices")
        assert all(f"on {count} CPU(s)" in stderr for count in counts)
    assert not any(run.exists() for run in runs)
