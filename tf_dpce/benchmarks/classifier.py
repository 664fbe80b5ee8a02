"""What a step of the classifier alone costs, sampled and exact: draw, gather, logits, update."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.losses import InstanceLoss
from tf_dpce.model import DualPath, RowClassifier
from tf_dpce.training.optimizers import LayerwiseSGD
from tf_dpce.training.sampling import SampledDualPath, Sampler
from tf_dpce.training.schedule import StageSchedule
from tf_dpce.training.strategy import make_strategy

_WARM_UP = 2
# Matrices of the size of the exact classifier that a step holds at once: itself, its momentum,
# its gradient, the same with decay and what the update makes of them.
_HELD = 6


@dataclass(frozen=True)
class Cost:
    """A step of one classifier.

    Attributes:
        classifier: "sampled" or "exact".
        instances: C.
        median: seconds.
        low: of the fastest round.
        high: of the slowest.
        memory_mib: the most that the process held, less what it held before there was a model.
        moved_mib: what must move at least: rows and momentum read and written once, and the
            logits of both modalities written and read once.
    """

    classifier: str
    instances: int
    median: float
    low: float
    high: float
    memory_mib: float
    moved_mib: float


def rows(
    instances: int, dim: int = 512, sampled: int = 8192, batch: int = 32, rounds: int = 10
) -> list[Cost]:
    """Times a step of the sampled and of the exact classifier in turn, each in a fresh process.

    The exact one is left out where it does not fit into the memory that is free.

    Args:
        instances: C, the number of classes.
        dim: D, width of a feature.
        sampled: S, negatives of a step.
        batch: B.
        rounds: that are timed.
    """
    counts = {"sampled": sampled + batch}
    if 4 * instances * (_HELD * dim + 6 * batch) < _free_bytes():
        counts["exact"] = instances
    workers = {
        name: _Worker(instances, dim, sampled if name == "sampled" else 0, batch) for name in counts
    }
    seconds: dict[str, list[float]] = {name: [] for name in counts}
    for _ in range(_WARM_UP + rounds):
        for name, worker in workers.items():
            seconds[name].append(worker.step())
    found = []
    for name, worker in workers.items():
        timed, memory = np.array(seconds[name][_WARM_UP:]), worker.close()
        moved = 4 * counts[name] * (2 * 2 * dim + 2 * 2 * batch) / 2**20
        spread = (float(np.median(timed)), float(timed.min()), float(timed.max()))
        found.append(Cost(name, instances, *spread, memory, moved))
    return found


class _Worker:
    """A process that takes a step whenever it is asked."""

    def __init__(self, *case: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *case), daemon=True)
        self._process.start()
        theirs.close()

    def step(self) -> float:
        """Returns the seconds that a step took."""
        self._connection.send("step")
        return self._connection.recv()

    def close(self) -> float:
        """Ends the process and returns the MiB that it held."""
        self._connection.send("end")
        held = self._connection.recv()
        self._process.join()
        return held


def _serve(connection: Connection, instances: int, dim: int, sampled: int, batch: int) -> None:
    before = _peak_mib()
    step = classifier_step(instances, dim, sampled, batch)
    while connection.recv() == "step":
        began = time.perf_counter()
        step()
        connection.send(time.perf_counter() - began)
    connection.send(_peak_mib() - before)


def classifier_step(instances: int, dim: int, sampled: int, batch: int) -> Callable[[], float]:
    """Returns a call that takes one training step of a classifier and returns its loss.

    Features are drawn numbers that no tower has made; the optimizer is the recipe's.

    Args:
        instances: C, the number of classes.
        dim: D, width of a feature.
        sampled: S, negatives of a step; 0 for the exact classifier.
        batch: B.
    """
    strategy, schedule = make_strategy(), StageSchedule(0.1, 10_000, decay_steps=(5_000,))
    with strategy.scope():
        classifier = None
        if sampled:
            classifier = RowClassifier(instances, True, name="instance_classifier")
        network = DualPath(*_towers(dim), instances, dropout=0.0, classifier=classifier)
        sampler = Sampler(instances, sampled, batch, seed=0)
        if sampled:
            network = SampledDualPath.placing(network, sampler.places)
        optimizer = LayerwiseSGD(schedule, {}, 1e-4)
        optimizer.build(network.trainable_variables)
        losses = {"image_logits": InstanceLoss(), "text_logits": InstanceLoss()}
        network.compile(optimizer, losses, jit_compile=False)
        if sampled:
            network.sample_from(classifier, sampler, schedule.rates())
    batches = _batches(instances, dim, batch)
    network.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)
    iterator = iter(strategy.experimental_distribute_dataset(batches))
    return lambda: float(network.train_function(iterator)["loss"])


def _towers(dim: int) -> tuple[keras.Model, keras.Model]:
    """Returns towers without a weight: what they are given is what they give."""
    image, text = keras.Input((dim,)), keras.Input((dim,), dtype="int32")
    return (
        keras.Model(image, keras.layers.Identity()(image), name="image_tower"),
        keras.Model(text, keras.layers.Rescaling(0.01)(text), name="text_tower"),
    )


def _batches(instances: int, dim: int, batch: int) -> tf.data.Dataset:
    draw = np.random.default_rng(0)
    shape = (64, batch)
    inputs = {
        "image": draw.normal(size=(*shape, dim)).astype(np.float32),
        "text": draw.integers(-100, 100, (*shape, dim), np.int32),
    }
    ids = draw.integers(0, instances, shape)
    targets = {"image_logits": ids, "text_logits": ids}
    return tf.data.Dataset.from_tensor_slices((inputs, targets)).repeat().prefetch(2)


def _peak_mib() -> float:
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _free_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
