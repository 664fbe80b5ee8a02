"""One process alone is the case of one worker; several need a program of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.training.kills import PATIENCE
from tests.unit.training.machines import free_ports, tf_config
from tf_dpce.errors import Stopped, UserError
from tf_dpce.training.cluster import Cluster
from tf_dpce.training.joining import joined
from tf_dpce.training.workers import Workers

EACH = """
from tf_dpce.training.joining import joined
with joined(lambda line: None) as workers:
    print(workers.each((1 + workers.index) / 4))
"""


def silent(line: str) -> None:
    pass


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with joined(silent) as workers:
        return workers


def test_a_process_alone_is_the_chief_and_takes_every_row(alone: Workers):
    assert (alone.index, alone.count, alone.is_chief) == (0, 1, True)
    assert isinstance(alone.strategy, tf.distribute.MirroredStrategy)
    batches = tf.data.Dataset.range(8).batch(4)
    assert alone.batches(batches) is batches


def test_a_process_alone_agrees_with_itself(alone: Workers):
    assert alone.any(True) and not alone.any(False)
    value = np.arange(3)
    assert alone.of_chief(value) is value


def test_what_each_worker_has_comes_in_their_order(alone: Workers):
    assert alone.each(0.5) == [0.5]
    # The second of three, whose sum the others have a part in.
    strategy = SimpleNamespace(reduce=lambda how, own, axis: own + [0.25, 0.0, 0.75])
    second = Workers(strategy, Cluster(("a:1", "b:1", "c:1"), 1))
    assert second.each(0.5) == [0.25, 0.5, 0.75]


def test_two_workers_know_what_each_of_them_has():
    ports = free_ports(2)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", EACH],
            env=os.environ | {"TF_CONFIG": tf_config(ports, index), "CUDA_VISIBLE_DEVICES": "-1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        found = [process.communicate(timeout=PATIENCE)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert found == ["[0.25, 0.5]\n"] * 2


@pytest.mark.parametrize("error", [UserError("wrong"), Stopped("stopped"), KeyError("bug")])
def test_what_fails_together_fails_with_its_own_error(alone: Workers, error: Exception):
    with pytest.raises(type(error)) as caught, alone.together():
        raise error
    assert caught.value is error
    with pytest.raises(type(error)) as caught, alone.chief_first():
        raise error
    assert caught.value is error


def test_workers_must_meet_before_tensorflow_is_used(monkeypatch: pytest.MonkeyPatch):
    tf.constant(1)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("TF_CONFIG", tf_config(free_ports(2), 1))
    with pytest.raises(UserError, match="which only `train` as a program"), joined(silent):
        pass
    assert signal.getsignal(signal.SIGTERM) is before
