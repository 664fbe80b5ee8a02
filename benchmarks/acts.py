"""What a classifier alone is asked to do: a step, its rows moved, a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import forget_peak, peak_mib
from tf_dpce.losses import InstanceLoss
from tf_dpce.models.dual_path import DualPath, RowClassifier
from tf_dpce.training.checkpoint import Progress, save_checkpoint
from tf_dpce.training.distributed import mirrored_strategy
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.optimizers import LayerwiseSGD
from tf_dpce.training.partial_fc import ClassSampler, PartialFC
from tf_dpce.training.schedule import StageSchedule


def classifier_acts(
    instances: int, sampled: int, dim: int, batch: int, seed: int
) -> dict[str, Callable[[], object]]:
    """Returns what can be done with a classifier: `step`, and with a sampled one all the others.

    These are `move` and `save`, which returns the four figures of `_saving`.

    Features are drawn numbers that no tower has made; the optimizer is the recipe's.

    Args:
        instances: C, the number of classes.
        sampled: S, classes that a step draws; 0 for the exact classifier.
        dim: D, width of a feature.
        batch: B.
        seed: of weights and draws.
    """
    keras.utils.set_random_seed(seed)
    strategy, schedule = mirrored_strategy(), StageSchedule(0.1, 10_000, decay_steps=(5_000,))
    with strategy.scope():
        classifier = None
        if sampled:
            classifier = RowClassifier(instances, True, name="instance_classifier")
        network = DualPath(*_towers(dim), instances, dropout=0.0, classifier=classifier)
        partial_fc = None
        if sampled:
            sampler = ClassSampler(instances, sampled, batch, seed)
            partial_fc = PartialFC(classifier, sampler)
        network = DualPathTrainer(network, partial_fc=partial_fc)
        optimizer = LayerwiseSGD(schedule, {}, 1e-4)
        optimizer.build(network.trainable_variables)
        losses = {"image_logits": InstanceLoss(), "text_logits": InstanceLoss()}
        network.compile(optimizer, losses, jit_compile=False)
    batches = _batches(instances, dim, batch)
    network.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)
    iterator = iter(strategy.experimental_distribute_dataset(batches))
    acts = {"step": lambda: float(network.train_function(iterator)["loss"])}
    if partial_fc:
        tables = [*classifier.weights, *partial_fc.slots]
        acts["move"] = _moving(tables, sampler.max_classes, strategy)
        acts["save"] = _saving(tables)
    return acts


def _moving(
    tables: Sequence[keras.Variable], count: int, strategy: tf.distribute.Strategy
) -> Callable[[], None]:
    """Returns a call that reads the rows and slots of some classes and writes them as they were."""
    # The copy of this replica, without what keeps several the same.
    copies = [strategy.experimental_local_results(variable.value)[0] for variable in tables]
    draw = np.random.default_rng(0)
    drawn = (draw.choice(tables[0].shape[0], count, replace=False) for _ in range(8))
    ids = cycle([tf.constant(each, tf.int64) for each in drawn])

    @tf.function
    def move(ids: tf.Tensor) -> None:
        for copy in copies:
            copy.scatter_update(tf.IndexedSlices(tf.gather(copy, ids), ids))

    def call() -> None:
        move(next(ids))
        tf.test.experimental.sync_devices()

    return call


def _saving(variables: Sequence[keras.Variable]) -> Callable[[], tuple[float, ...]]:
    """Returns a call that writes variables as a checkpoint to a folder for temporary files.

    It returns the seconds, the MiB on disk, and the MiB that the process held before and at most.
    """

    def call() -> tuple[float, ...]:
        with TemporaryDirectory() as folder:
            path = Path(folder, "last.npz")
            before, began = forget_peak(), time.perf_counter()
            save_checkpoint(path, variables, Progress(1, 0, 0, -1.0))
            return time.perf_counter() - began, path.stat().st_size / 2**20, before, peak_mib()

    return call


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
