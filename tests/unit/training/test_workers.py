"""How workers communicate; several workers need programs of their own."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.errors import raises
from tests.unit.training.kills import PATIENCE, start_python
from tests.unit.training.machines import free_ports, tf_config
from tests.unit.training.test_partial_fc import LayerwiseSGD, batches, exact_trainer, sampled
from tf_dpce.errors import Stopped, UserError
from tf_dpce.training.cluster import join_workers
from tf_dpce.training.distributed import Workers


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with join_workers() as workers:
        return workers


def test_a_process_alone_is_the_chief_takes_every_row_and_agrees_with_itself(alone: Workers):
    assert (alone.index, alone.count, alone.is_chief) == (0, 1, True)
    assert isinstance(alone.strategy, tf.distribute.MirroredStrategy)
    rows, value = tf.data.Dataset.range(8).batch(4), np.arange(3)
    assert alone.distribute(rows) is rows and alone.broadcast(value) is value
    assert alone.any_true(True) and not alone.any_true(False)
    assert alone.all_gather(0.5) == [0.5]


def test_a_block_that_fails_keeps_its_own_error(alone: Workers):
    for error in (UserError("a.b", "wrong"), Stopped("stop"), KeyError("bug")):
        for block in (alone.fail_together, alone.main_process_first):
            with pytest.raises(type(error)) as caught, block():
                raise error
            assert caught.value is error


def test_workers_must_start_before_tensorflow_is_used(monkeypatch: pytest.MonkeyPatch):
    tf.constant(1)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("TF_CONFIG", tf_config(free_ports(2), 1))
    with raises("workers.start"), join_workers():
        pass
    assert signal.getsignal(signal.SIGTERM) is before


# Each worker takes half of each batch.
PROGRAM = """
import sys

import numpy as np
import tensorflow as tf

from tf_dpce.training.cluster import join_workers

with join_workers() as workers:
    from tests.unit.training.test_partial_fc import (
        BATCH, LayerwiseSGD, batches, exact, exact_trainer, sampled
    )

    assert workers.all_gather((1 + workers.index) / 4) == [0.25, 0.5]
    assert workers.any_true(workers.index == 1) and not workers.any_true(False)
    assert workers.broadcast(np.array([workers.index + 7])).tolist() == [7]
    half = BATCH // 2
    rows = slice(workers.index * half, (workers.index + 1) * half)
    own = batches().map(lambda *data: tf.nest.map_structure(lambda part: part[rows], data))
    with workers.strategy.scope():
        plain, network = exact(LayerwiseSGD), exact_trainer(LayerwiseSGD)
        partial, classifier = sampled(LayerwiseSGD, negatives=7)
    workers.broadcast_variables(network.variables)
    # If this does not fail any more, `multi_worker_train_function` has nothing left to get past.
    try:
        plain.fit(workers.distribute(own), shuffle=False, verbose=0)
    except Exception as error:
        print(f"Keras fails: {type(error).__name__}")
    losses = []
    for trainer in (network, partial):
        trainer.build_metrics(own.element_spec)
        losses += trainer.fit(workers.distribute(own), shuffle=False, verbose=0).history["loss"]
    if workers.is_chief:
        weights = [w.numpy() for w in (*network.trainable_weights, classifier.rows)]
        np.savez(sys.argv[1], *weights, losses=losses)
"""


@pytest.mark.process
def test_two_workers_fit_what_one_process_does_where_keras_alone_fails(
    tmp_path: Path, project_root: Path
):
    ports, file = free_ports(2), tmp_path / "chief.npz"
    both = {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(project_root)}
    started = [
        start_python(["-c", PROGRAM, str(file)], TF_CONFIG=tf_config(ports, index), **both)
        for index in range(2)
    ]
    try:
        answers = [process.communicate(timeout=PATIENCE) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (out, err) in zip(started, answers, strict=True):
        assert process.returncode == 0, err[-3000:]
        assert out.startswith("Keras fails: "), out

    network, (partial, classifier) = exact_trainer(LayerwiseSGD), sampled(LayerwiseSGD, negatives=7)
    losses = [
        trainer.fit(batches(), shuffle=False, verbose=0).history["loss"][0]
        for trainer in (network, partial)
    ]
    with np.load(file) as found:
        np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)
        expected = [*network.trainable_weights, classifier.rows]
        for place, weight in enumerate(expected):
            np.testing.assert_allclose(found[f"arr_{place}"], weight, rtol=0, atol=1e-5)
