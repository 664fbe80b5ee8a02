"""Trains both stages under the JAX backend, on a machine that has no TensorFlow.

    pip install -r requirements-jax.txt     # and JAX's plug-in for the accelerator
    python -m examples.jax_fit arrays

Reads only what `examples/jax_arrays.py` wrote and leaves `model.weights.h5` in the same folder.
Back on a machine with TensorFlow, `train --from-weights arrays/model.weights.h5` with the same
preset, options and --data makes a run of it, which `evaluate` and `export` take as any other.

This is a training loop to start from, simpler than `train`: it has no crops, no validation and no
checkpoints. All trained layers share one learning rate. A cached backbone is trained as a frozen
one, and the ranking loss takes its negatives from the batch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np

from tf_dpce.config import Config, StageConfig, from_dict
from tf_dpce.losses import ContrastiveLoss, InstanceLoss, RankingLoss
from tf_dpce.models import image_tower, text_tower
from tf_dpce.models.dual_path import DualPath

Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def build(config: Config, vocabulary_size: int, num_instances: int) -> DualPath:
    """Builds the model that `train` builds from the same configuration."""
    model = config.model
    images = image_tower(
        config.image.backbone,
        weights=None if config.weights == "none" else config.weights,
        input_size=config.image.input_size,
        output_dim=model.output_dim,
        head_dim=config.image.head_dim,
        dropout=model.tower_dropout,
    )
    texts = text_tower(
        vocabulary_size,
        max_length=config.text.max_length,
        word_dim=config.text.word_dim,
        blocks=config.text.blocks,
        output_dim=model.output_dim,
        widths=config.text.widths,
        word_dropout=config.text.word_dropout,
        dropout=model.tower_dropout,
    )
    return DualPath(
        images,
        texts,
        num_instances,
        dropout=model.dropout,
        classifier_bias=model.classifier_bias,
        relu_before_losses=model.relu_before_losses,
    )


def losses(stage: StageConfig) -> dict[str, tuple[keras.losses.Loss, float]]:
    """Returns the losses of a stage and their weights, by output of the model."""
    loss = stage.loss
    pair = (
        ContrastiveLoss(loss.temperature)
        if loss.pair_loss == "contrastive"
        else RankingLoss(loss.margin, "batch")
    )
    table = {
        "image_logits": (InstanceLoss(), loss.image_instance),
        "text_logits": (InstanceLoss(), loss.text_instance),
        "pair": (pair, loss.pair),
    }
    return {name: entry for name, entry in table.items() if entry[1]}


def optimizer(stage: StageConfig, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a stage of `steps` steps an epoch."""
    rate = stage.learning_rate
    if stage.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, stage.epochs * steps)
    elif stage.decay_epochs:
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [epoch * steps for epoch in stage.decay_epochs],
            [rate * 0.1**fall for fall in range(len(stage.decay_epochs) + 1)],
        )
    if stage.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=stage.weight_decay)
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=stage.weight_decay)


def batches(folder: Path, config: Config, number: int) -> Iterator[Batch]:
    """Yields batches without end; an epoch has each image once, with one of its captions."""
    names = ("images", "captions", "instances")
    images, captions, instances = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in names)
    stage, draw = config.stage(number), np.random.default_rng([config.seed, number])
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
            targets = dict.fromkeys(losses(stage), instances[rows])
            yield {"image": pixels, "text": ids}, targets


class Speed(keras.callbacks.Callback):
    """Prints the loss and the images a second of each epoch."""

    def __init__(self, name: str, images: int) -> None:
        super().__init__()
        self.name = name
        self.images = images

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        speed = self.images / (time.monotonic() - self.began)
        print(f"{self.name}, epoch {epoch + 1}: loss {logs['loss']:.4f}, {speed:.1f} images/s")


def fit_stage(model: DualPath, folder: Path, config: Config, number: int) -> None:
    """Trains one stage of a configuration."""
    stage = config.stage(number)
    chosen = losses(stage)
    model.image_backbone.trainable = stage.backbone == "trained"
    model.classifier.trainable = bool({"image_logits", "text_logits"} & set(chosen))
    steps = len(np.load(folder / "instances.npy")) // stage.batch_size
    # A network of the same weights, so that the model is saved without an optimizer.
    network = DualPath.sharing(model)
    network.compile(
        optimizer(stage, steps),
        {name: loss for name, (loss, _) in chosen.items()},
        loss_weights={name: weight for name, (_, weight) in chosen.items()},
    )
    network.fit(
        batches(folder, config, number),
        epochs=stage.epochs,
        steps_per_epoch=steps,
        callbacks=[Speed(f"stage {number}", steps * stage.batch_size)],
        verbose=0,
    )


def main(folder: Path) -> None:
    """Trains both stages on the arrays of a folder and saves the weights there."""
    saved = json.loads((folder / "config.json").read_text())
    config, data = from_dict(saved["config"]), saved["data"]
    keras.utils.set_random_seed(config.seed)
    if config.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    device = jax.devices()[0]
    print(f"backend {keras.backend.backend()}, device {device.device_kind} ({device.platform})")
    model = build(config, data["vocabulary_size"], data["num_instances"])
    for number in (1, 2):
        if config.stage(number).epochs:
            fit_stage(model, folder, config, number)
    model.save_weights(folder / "model.weights.h5")
    print(folder / "model.weights.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
