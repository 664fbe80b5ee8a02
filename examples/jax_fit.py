"""Trains both stages under the JAX backend, on a machine that has no TensorFlow.

    pip install -r requirements-jax.txt     # and JAX's plug-in for the accelerator
    python -m examples.jax_fit arrays

Reads only what `examples/jax_arrays.py` wrote and leaves `model.weights.h5` in the same folder.
Back on a machine with TensorFlow, `train --from-weights arrays/model.weights.h5` with the same
preset, options and --data makes a run of it, which `evaluate` and `export` take as any other.

This is a training loop to start from, simpler than `train`: of what alters images and captions it
has flips, position shift and the dropout of words alone, and no averages of weights, no validation
and no checkpoints. A cached backbone is trained as a frozen one, and the ranking loss takes its
negatives from the batch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np

from tf_dpce.config import Config, StageConfig, from_dict
from tf_dpce.models.build import build_model
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.objective import loss_weights, mark_trained, stage_losses
from tf_dpce.training.optimizers import stage_optimizer, stage_schedule

Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def stage_settings(config: Config, number: int) -> StageConfig:
    """Returns the settings of a stage, with the negatives of the batch for the ranking loss."""
    stage = config.stage(number)
    return replace(stage, loss=replace(stage.loss, negatives="batch"))


def batches(folder: Path, config: Config, number: int) -> Iterator[Batch]:
    """Yields batches without end; an epoch has each image once, with one of its captions."""
    names = ("images", "captions", "instances")
    images, captions, instances = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in names)
    stage, draw = stage_settings(config, number), np.random.default_rng([config.seed, number])
    while True:
        order = draw.permutation(len(images))
        for start in range(0, len(order) - stage.batch_size + 1, stage.batch_size):
            rows = order[start : start + stage.batch_size]
            pixels = images[rows].astype(np.float32)
            if config.image.flip:
                mirrored = draw.random(len(rows)) < 0.5
                pixels[mirrored] = pixels[mirrored, :, ::-1]
            ids = captions[rows, draw.integers(captions.shape[1], size=len(rows))]
            if config.text.shift:
                free = ids.shape[1] - np.count_nonzero(ids, axis=1)
                ids = np.stack(list(map(np.roll, ids, draw.integers(free + 1))))
            targets = dict.fromkeys(loss_weights(stage.loss), instances[rows])
            yield {"image": pixels, "text": ids}, targets


def fit_stage(model: DualPath, folder: Path, config: Config, number: int) -> None:
    """Trains one stage of a configuration."""
    stage = stage_settings(config, number)
    mark_trained(stage, model)
    steps = len(np.load(folder / "instances.npy")) // stage.batch_size
    # A network of the same weights, so that the model is saved without an optimizer.
    network = DualPath(**model.shared_parts())
    network.compile(
        stage_optimizer(stage, stage_schedule(stage, steps), network),
        stage_losses(stage.loss),
        loss_weights=loss_weights(stage.loss),
    )
    began = time.monotonic()
    rows = batches(folder, config, number)
    # Keras prints the loss of each epoch on a line.
    network.fit(rows, epochs=stage.epochs, steps_per_epoch=steps, verbose=2)
    speed = stage.epochs * steps * stage.batch_size / (time.monotonic() - began)
    print(f"stage {number}: {speed:.1f} images/s, the first step's compilation included")


def main(folder: Path) -> None:
    """Trains both stages on the arrays of a folder and saves the weights there."""
    saved = json.loads((folder / "config.json").read_text())
    # Weights and word vectors are in `start.weights.h5`; their own files are on the other machine.
    config, data = replace(from_dict(saved["config"]), weights="none"), saved["data"]
    keras.utils.set_random_seed(config.seed)
    device = jax.devices()[0]
    print(f"backend {keras.backend.backend()}, device {device.device_kind} ({device.platform})")
    model = build_model(config, data["vocabulary_size"], data["num_instances"])
    model.load_weights(folder / "start.weights.h5")
    for number in (1, 2):
        if config.stage(number).epochs:
            fit_stage(model, folder, config, number)
    model.save_weights(folder / "model.weights.h5")
    print(folder / "model.weights.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
