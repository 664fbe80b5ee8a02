"""Both stages in pure Keras, over a bundle: no TensorFlow is needed, nor imported."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_dpce.config import Config
from tf_dpce.errors import UserError
from tf_dpce.files import remove_stale, sha256_file, sole_writer, write_json
from tf_dpce.model import DualPath
from tf_dpce.offload.batches import Epochs, Pairs
from tf_dpce.offload.bundle import (
    FITTED_FILE,
    START_FILE,
    Bundle,
    Say,
    Split,
    load_weights,
    save_weights,
    told_of_writing,
)
from tf_dpce.offload.devices import used_device
from tf_dpce.training.assembly import build_model, compile_stage, mark_trained, stage_losses
from tf_dpce.training.averages import averaged
from tf_dpce.training.callbacks import SoleLoss, Validation, validation_metrics
from tf_dpce.training.history import History
from tf_dpce.training.precision import in_own_precision
from tf_dpce.training.schedule import stage_schedule
from tf_dpce.training.watch import Watch

_EVALUATION_BATCH = 64
_MAX_THREADS = 16


def fit(bundle: Bundle, say: Say = lambda line: None) -> None:
    """Trains the stages of a bundle and leaves their best weights and a history in it.

    A stage that was fitted to its end before is left as it is. A stage depends on the bundle and
    the weights it starts from alone, so that one that was broken off ends as if nothing had been.

    Args:
        bundle: that `pack` made.
        say: called with a line now and then.

    Raises:
        UserError: a backend that is none of ours, a bundle that is damaged, a loss that is no
            number, or a disk that is full.
    """
    backend, device = used_device()
    say(f"{backend} on {device}, {bundle.config.precision}, seed {bundle.config.seed}")
    remedy = "make room there, then fit again: it goes on with the stage that was broken off"
    with told_of_writing(bundle.folder, remedy), sole_writer(bundle.folder):
        remove_stale(bundle.folder)
        start, digest = bundle.folder / START_FILE, bundle.saved["bundle"]["start_sha256"]
        for number in bundle.stages:
            noted = bundle.fitted()
            if str(number) in noted["stages"]:
                say(f"stage {number}: fitted before, to anew remove {FITTED_FILE}")
            else:
                stage = fit_stage(bundle.config, bundle, number, start, digest, say)
                stages = {**noted["stages"], str(number): stage}
                kept = {"backend": backend, "device": device, "stages": stages}
                write_json(bundle.folder / FITTED_FILE, kept)
            start = bundle.weights_path(number)
            digest = bundle.fitted()["stages"][str(number)]["sha256"]


@in_own_precision
def fit_stage(
    config: Config, bundle: Bundle, number: int, start: Path, sha256: str, say: Say
) -> dict[str, Any]:
    """Trains one stage and returns what is noted of it: see `Bundle.fitted`.

    Args:
        config: of the run.
        bundle: that `pack` made.
        number: 1 or 2.
        start: file of the weights to start from.
        sha256: its digest.
        say: called with a line after each epoch.
    """
    settings = config.stage(number)
    say(f"stage {number}: {settings.epochs} epochs, trunk {settings.trunk}")
    # Weights come from a file, but where dropout stands is not in it.
    keras.utils.set_random_seed((config.seed + 1000 * number) % 2**32)
    model = bare_model(config, bundle)
    load_weights(model, start, sha256)
    pairs = Pairs(bundle.split("train"), config, number, min(_MAX_THREADS, os.cpu_count() or 1))
    # Compiled apart, so that the optimizer is not saved with the model.
    mark_trained(settings, model)
    network = DualPath.sharing(model)
    compile_stage(settings, model, network, stage_schedule(settings, pairs.num_batches))
    best = Best(model, bundle.weights_path(number))
    speed = Speed(pairs.num_batches * settings.batch_size)
    validation = Validation(
        validator(model, bundle.split("val")), settings.validate_every, settings.epochs
    )
    network.fit(
        pairs,
        epochs=settings.epochs,
        callbacks=[
            *(Epochs(pairs), speed, SoleLoss(stage_losses(settings.loss)[1]), validation),
            *(Watch(number, settings.loss, None, say), History(bundle.folder, number), best),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: say(_line(number, epoch, logs))
            ),
        ],
        verbose=0,
        shuffle=False,
    )
    if not best.epoch:
        raise UserError(f"stage {number} has no epoch with a validation: raise its epochs")
    return {**best.noted(), "pictures_per_second": speed.last}


def bare_model(config: Config, bundle: Bundle) -> DualPath:
    """Builds the model of a bundle, whose weights come from a file."""
    config = replace(config, weights="none")
    return build_model(config, bundle.vocabulary_size, bundle.num_instances)


def validator(model: DualPath, split: Split) -> Callable[[], dict[str, Any]]:
    """Returns what embeds a split with the weights that a model has then, and scores it."""

    def validate() -> dict[str, Any]:
        images = embed(model.image_encoder, split.pictures, np.float32)
        texts = embed(model.text_encoder, split.ids, np.int32)
        return validation_metrics(images, texts, split.instances, split.caption_instances)

    return validate


def embed(encoder: keras.Model, rows: np.ndarray, dtype: type) -> np.ndarray:
    """Returns what an encoder says of rows `[N, ...]`: float32 `[N, D]`."""
    vectors = []
    for start in range(0, len(rows), _EVALUATION_BATCH):
        batch = np.asarray(rows[start : start + _EVALUATION_BATCH], dtype)
        # One length alone, because every other one is compiled anew.
        padding = [(0, _EVALUATION_BATCH - len(batch))] + [(0, 0)] * (batch.ndim - 1)
        answer = encoder.predict_on_batch(np.pad(batch, padding))
        vectors.append(np.asarray(answer, np.float32)[: len(batch)])
    return np.concatenate(vectors)


class Speed(keras.callbacks.Callback):
    """Adds `pictures_per_second` to an epoch's logs; it must come before the validation.

    Args:
        pictures: that an epoch sees.
    """

    def __init__(self, pictures: int) -> None:
        super().__init__()
        self.pictures = pictures

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.last = round(self.pictures / (time.monotonic() - self._began), 1)
        logs["pictures_per_second"] = self.last


class Best(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the highest `val_rsum`, their averages where there are.

    Args:
        kept: the model to write, not compiled.
        path: of the file.

    Attributes:
        epoch: of the best, counted from 1; 0 before the first validation.
    """

    def __init__(self, kept: DualPath, path: Path) -> None:
        super().__init__()
        self.kept = kept
        self.path = path
        self.epoch = 0
        self.rsum = -1.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs.get("val_rsum", -1.0) > self.rsum:
            with averaged(self.model.optimizer):
                save_weights(self.kept, self.path)
            self.epoch, self.rsum = epoch + 1, logs["val_rsum"]

    def noted(self) -> dict[str, Any]:
        """Returns which epoch it was, how good, and the file's digest."""
        return {"epoch": self.epoch, "val_rsum": self.rsum, "sha256": sha256_file(self.path)}


def _line(stage: int, epoch: int, logs: dict[str, Any]) -> str:
    rsum = f", val rsum {logs['val_rsum']:.1f}" if "val_rsum" in logs else ""
    speed = f"{logs['pictures_per_second']:.0f} pictures a second"
    return f"stage {stage}, epoch {epoch + 1}: loss {logs['loss']:.4f}{rsum}, {speed}"
