"""Both stages in pure Keras, over a bundle: no TensorFlow is needed, nor imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_dpce.config import Config, StageConfig
from tf_dpce.files import remove_stale, sole_writer, write_json
from tf_dpce.models.dual_path import DualPath
from tf_dpce.offload.batches import Pairs
from tf_dpce.offload.bundle import (
    FITTED_FILE,
    START_FILE,
    Bundle,
    Say,
    Split,
    load_weights,
    told_of_writing,
)
from tf_dpce.offload.callbacks import Best, Speed, fit_callbacks
from tf_dpce.offload.devices import used_device
from tf_dpce.training.assembly import build_model, compile_stage, mark_trained
from tf_dpce.training.callbacks import validation_metrics
from tf_dpce.training.precision import in_own_precision
from tf_dpce.training.schedule import stage_schedule

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
    used = dict(zip(("backend", "device"), used_device(), strict=True))
    say("{backend} on {device}".format(**used) + f", {bundle.config.precision}")
    remedy = "make room there, then fit again: it goes on with the stage that was broken off"
    with told_of_writing(bundle.folder, remedy), sole_writer(bundle.folder):
        remove_stale(bundle.folder)
        start, digest = bundle.folder / START_FILE, bundle.saved["bundle"]["start_sha256"]
        for number in bundle.stages:
            stages = bundle.fitted()["stages"]
            if str(number) in stages:
                say(f"stage {number}: fitted before; to fit it anew, remove {FITTED_FILE}")
            else:
                noted = fit_stage(bundle.config, bundle, number, start, digest, say)
                stages = {**stages, str(number): noted}
                write_json(bundle.folder / FITTED_FILE, {**used, "stages": stages})
            start, digest = bundle.weights_path(number), stages[str(number)]["sha256"]


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
    network = _network(settings, model, pairs.num_batches)
    best = Best(model, bundle.weights_path(number))
    speed = Speed(pairs.num_batches * settings.batch_size)
    validate = validator(model, bundle.split("val"))
    callbacks = fit_callbacks(bundle, settings, pairs, validate, best, speed, say)
    network.fit(pairs, epochs=settings.epochs, callbacks=callbacks, verbose=0, shuffle=False)
    return {**best.noted(), "pictures_per_second": speed.last}


def bare_model(config: Config, bundle: Bundle) -> DualPath:
    """Builds the model of a bundle, whose weights come from a file."""
    config = replace(config, weights="none")
    return build_model(config, bundle.vocabulary_size, bundle.num_instances)


def _network(settings: StageConfig, model: DualPath, steps_per_epoch: int) -> DualPath:
    """Returns what is trained: a model of the same weights, so that no optimizer is saved."""
    mark_trained(settings, model)
    network = DualPath.sharing(model)
    compile_stage(settings, model, network, stage_schedule(settings, steps_per_epoch))
    return network


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
