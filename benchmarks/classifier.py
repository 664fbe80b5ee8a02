"""What the classifier alone costs, sampled and exact: a step, and the memory of its process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.memory import peak_mib
from benchmarks.timing import Row, interleave, row, step_rows
from tf_dpce.config import Config
from tf_dpce.losses import InstanceLoss
from tf_dpce.models.dual_path import DualPath, RowClassifier
from tf_dpce.training.distributed import mirrored_strategy
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.optimizers import LayerwiseSGD, StageSchedule
from tf_dpce.training.partial_fc import ClassSampler, PartialFC

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
    cases = {f"sampled, {size:,}": (size, sampled, *case) for size in sizes}
    rows = _timed(cases, rounds)
    for size, (name, sampled_case) in zip(sizes, cases.items(), strict=True):
        if 4 * size * (_AT_ONCE * dim + 6 * batch_size) < _free_bytes():
            pair = {name: sampled_case, f"exact, {size:,}": (size, 0, *case)}
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
    spawn = get_context("spawn")
    processes = {name: ProcessPoolExecutor(1, spawn, _begin, case) for name, case in cases.items()}
    calls = {name: partial(_in, process, _step) for name, process in processes.items()}
    rows = []
    for step in step_rows(interleave(calls, rounds, warm_up=2)):
        process = processes[step["name"]]
        rows += [step, row(f"{step['name']}: memory", "MiB", [_in(process, _added_mib)])]
        process.shutdown()
    return rows


def _in(process: ProcessPoolExecutor, function: Callable[[], float]) -> float:
    return process.submit(function).result()


# What a process of a classifier holds: its step, and the MiB that it began with.
_own: dict[str, Any] = {}


def _begin(*case: int) -> None:
    _own["before"] = peak_mib()
    _own["step"] = classifier_step(*case)


def _step() -> float:
    return _own["step"]()


def _added_mib() -> float:
    return peak_mib() - _own["before"]


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
