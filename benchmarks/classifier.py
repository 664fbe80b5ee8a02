"""What the classifier alone costs, sampled and exact: a step, and the memory of its process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import Row, interleave, peak_mib, row
from tf_dpce.config import Config
from tf_dpce.losses import InstanceLoss
from tf_dpce.models.dual_path import DualPath, RowClassifier
from tf_dpce.training.distributed import mirrored_strategy
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.optimizers import LayerwiseSGD
from tf_dpce.training.partial_fc import ClassSampler, PartialFC
from tf_dpce.training.schedule import StageSchedule

# Matrices of the size of the exact classifier that a step holds at once: itself, its momentum,
# its gradient, the same with decay and what the update makes of them.
_AT_ONCE = 6


def measure(
    config: Config,
    *,
    sizes: Sequence[int] = (30_000, 100_000, 300_000, 1_000_000),
    dim: int = 512,
    sampled: int = 8_192,
    batch_size: int = 32,
    rounds: int = 8,
) -> list[Row]:
    """Times a step of the sampled classifier at each size, then beside the exact one.

    Every classifier has a process of its own, so that its memory is known. The exact one is left
    out if it does not fit into the free memory.

    Args:
        config: its seed is taken.
        sizes: C, numbers of classes.
        dim: D, width of a feature.
        sampled: S, classes that a step draws.
        batch_size: B.
        rounds: number of rounds.
    """
    case = (dim, batch_size, config.seed)
    names = {f"sampled, {size:,}": (size, sampled, *case) for size in sizes}
    rows = _timed(names, rounds)
    for size in sizes:
        if 4 * size * (_AT_ONCE * dim + 6 * batch_size) < _free_bytes():
            pair = {
                f"sampled, {size:,}": (size, sampled, *case),
                f"exact, {size:,}": (size, 0, *case),
            }
            rows += _timed(pair, rounds)[2:]
    return rows


def classifier_step(
    instances: int, sampled: int, dim: int, batch: int, seed: int
) -> Callable[[], float]:
    """Returns a training step of a classifier, which returns its loss.

    Features are drawn numbers that no tower has made; the optimizer is the recipe's.

    Args:
        instances: C, the number of classes.
        sampled: S, classes that a step draws; 0 for the exact classifier.
        dim: D, width of a feature.
        batch: B.
        seed: seed of weights and draws.
    """
    keras.utils.set_random_seed(seed)
    strategy, schedule = mirrored_strategy(), StageSchedule(0.1, 10_000, decay_steps=(5_000,))
    with strategy.scope():
        classifier = partial_fc = None
        if sampled:
            classifier = RowClassifier(instances, True, name="instance_classifier")
            partial_fc = PartialFC(classifier, ClassSampler(instances, sampled, batch, seed))
        model = DualPath(*_towers(dim), instances, dropout=0.0, classifier=classifier)
        network = DualPathTrainer(model, partial_fc=partial_fc)
        optimizer = LayerwiseSGD(schedule, {}, 1e-4)
        optimizer.build(network.trainable_variables)
        losses = {"image_logits": InstanceLoss(), "text_logits": InstanceLoss()}
        network.compile(optimizer, losses, jit_compile=False)
    batches = _batches(instances, dim, batch)
    network.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)
    iterator = iter(strategy.experimental_distribute_dataset(batches))
    return lambda: float(network.train_function(iterator)["loss"])


def _timed(cases: dict[str, tuple[int, ...]], rounds: int) -> list[Row]:
    """Returns two rows for each case: its step relative to the first case, and its memory."""
    workers = {name: _Worker(*case) for name, case in cases.items()}
    seconds = interleave({name: worker.step for name, worker in workers.items()}, rounds, 2)
    first, rows = next(iter(cases)), []
    for name, taken in seconds.items():
        rows.append(row(name, "ms a step", 1000 * taken, first, 1000 * seconds[first]))
        rows.append(row(f"{name}: memory", "MiB", [workers[name].close()]))
    return rows


class _Worker:
    """A process that has a classifier and makes steps of it."""

    def __init__(self, *case: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *case), daemon=True)
        self._process.start()
        theirs.close()

    def step(self) -> float:
        """Makes one step and returns its loss."""
        self._connection.send("step")
        return self._connection.recv()

    def close(self) -> float:
        """Ends the process; returns the most MiB that it held, beyond what it began with."""
        self._connection.send("end")
        added = self._connection.recv()
        self._process.join()
        return added


def _serve(connection: Connection, *case: int) -> None:
    before, step = peak_mib(), classifier_step(*case)
    while connection.recv() != "end":
        connection.send(step())
    connection.send(peak_mib() - before)


def _free_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


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
