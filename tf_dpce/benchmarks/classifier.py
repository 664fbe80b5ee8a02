"""What a step of the classifier alone costs, sampled and exact: draw, gather, logits, update."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.benchmarks.timing import Report, Row, interleave, peak_mib, row, silent
from tf_dpce.config import Config
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


def measure(
    config: Config,
    progress: Report = silent,
    *,
    sizes: Sequence[int] = (30_000, 100_000, 300_000, 1_000_000),
    dim: int = 512,
    sampled: int = 8_192,
    batch_size: int = 32,
    rounds: int = 8,
) -> list[Row]:
    """Times a step of the sampled classifier at each size, then beside the exact one.

    Every classifier has a process of its own, so that its memory can be told. The exact one is
    left out where it does not fit into what is free.

    Args:
        config: whose seed is taken.
        progress: called with the rounds done and their total.
        sizes: C, numbers of classes.
        dim: D, width of a feature.
        sampled: S, classes that a step draws.
        batch_size: B.
        rounds: that are timed.
    """
    case = (dim, batch_size, config.seed)
    total = (1 + len(sizes)) * (_WARM_UP + rounds)
    seconds, sampled_rows = _timed(
        {f"sampled, {size:,}": (size, sampled, *case) for size in sizes}, rounds, progress, 0, total
    )
    base = next(iter(seconds))
    rows = [
        row(name, "ms a step", 1000 * values, base, 1000 * seconds[base])
        for name, values in seconds.items()
    ]
    rows += sampled_rows
    for place, size in enumerate(sizes, start=1):
        if 4 * size * (_HELD * dim + 6 * batch_size) > _free_bytes():
            continue
        name = f"exact, {size:,}"
        pair = {name: (size, 0, *case), f"sampled, {size:,}": (size, sampled, *case)}
        before = place * (_WARM_UP + rounds)
        seconds, (memory, moved, *_) = _timed(pair, rounds, progress, before, total)
        ours = f"sampled, {size:,}"
        rows += [row(name, "ms a step", 1000 * seconds[name], ours, 1000 * seconds[ours])]
        rows += [memory, moved]
    return rows


def _timed(
    cases: dict[str, tuple[int, ...]], rounds: int, progress: Report, before: int, total: int
) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Returns seconds by name, and rows of each one's memory and of what it has to move."""
    workers = {name: _Worker(*case) for name, case in cases.items()}
    seconds = interleave(
        {name: worker.step for name, worker in workers.items()},
        rounds,
        _WARM_UP,
        progress=lambda done, _: progress(before + done, total),
    )
    rows = []
    for name, (size, sampled, dim, batch_size, _) in cases.items():
        # Rows and momentum are read and written once, and so are the logits of both modalities.
        places = sampled + batch_size if sampled else size
        moved = 4 * places * (2 * 2 * dim + 2 * 2 * batch_size) / 2**20
        rows.append(row(f"{name}: memory", "MiB", [workers[name].close()]))
        rows.append(row(f"{name}: must move", "MiB a step", [moved]))
    return seconds, rows


class _Worker:
    """A process that takes a step whenever it is asked."""

    def __init__(self, *case: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *case), daemon=True)
        self._process.start()
        theirs.close()

    def step(self) -> None:
        """Takes a step and returns once it is done."""
        self._connection.send("step")
        self._connection.recv()

    def close(self) -> float:
        """Ends the process; returns the most MiB that it held, less those before it had a model."""
        self._connection.send("end")
        held = self._connection.recv()
        self._process.join()
        return held


def _serve(connection: Connection, *case: int) -> None:
    before = peak_mib()
    step = classifier_step(*case)
    while connection.recv() == "step":
        connection.send(step())
    connection.send(peak_mib() - before)


def classifier_step(
    instances: int, sampled: int, dim: int, batch: int, seed: int
) -> Callable[[], float]:
    """Returns a call that takes one training step of a classifier and returns its loss.

    Features are drawn numbers that no tower has made; the optimizer is the recipe's.

    Args:
        instances: C, the number of classes.
        sampled: S, classes that a step draws; 0 for the exact classifier.
        dim: D, width of a feature.
        batch: B.
        seed: of weights and draws.
    """
    keras.utils.set_random_seed(seed)
    strategy, schedule = make_strategy(), StageSchedule(0.1, 10_000, decay_steps=(5_000,))
    with strategy.scope():
        classifier = None
        if sampled:
            classifier = RowClassifier(instances, True, name="instance_classifier")
        network = DualPath(*_towers(dim), instances, dropout=0.0, classifier=classifier)
        sampler = Sampler(instances, sampled, batch, seed)
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


def _free_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
