"""What happens beside the steps of a stage that is fitted away from TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tf_dpce.config import StageConfig
from tf_dpce.files import sha256_file
from tf_dpce.models.dual_path import DualPath
from tf_dpce.offload.batches import Epochs, Pairs
from tf_dpce.offload.bundle import Bundle, Say, save_weights
from tf_dpce.training.assembly import stage_losses
from tf_dpce.training.callbacks import SoleLoss, Validation
from tf_dpce.training.diagnostics import Watch
from tf_dpce.training.ema import averaged
from tf_dpce.training.history import History


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


class Told(keras.callbacks.Callback):
    """Says a line after each epoch.

    Args:
        stage: 1 or 2.
        say: called with the line.
    """

    def __init__(self, stage: int, say: Say) -> None:
        super().__init__()
        self.stage = stage
        self.say = say

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        rsum = f", val rsum {logs['val_rsum']:.1f}" if "val_rsum" in logs else ""
        speed = f"{logs['pictures_per_second']:.0f} pictures a second"
        self.say(f"stage {self.stage}, epoch {epoch + 1}: loss {logs['loss']:.4f}{rsum}, {speed}")


def fit_callbacks(
    bundle: Bundle,
    settings: StageConfig,
    pairs: Pairs,
    validate: Callable[[], dict[str, Any]],
    best: Best,
    speed: Speed,
    say: Say,
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks of a stage, in the order in which they must run.

    The speed comes before the validation, whose time is not training's. A loss that is no number
    ends the stage before its weights are kept.
    """
    members, number = bundle.config.model.members, pairs.stage
    weights = stage_losses(settings.loss, members=members)[1]
    return [
        *(Epochs(pairs), speed, SoleLoss(weights)),
        Validation(validate, settings.validate_every, settings.epochs),
        Watch(number, settings.loss, settings.epochs, None, say),
        *(History(bundle.folder, number), best, Told(number, say)),
    ]
