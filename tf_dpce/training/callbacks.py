"""What happens beside the steps. Their order is behaviour: `stage_callbacks` is its only home."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_dpce.evaluation.metrics import metric_logs, retrieval_metrics
from tf_dpce.training.checkpoint import (
    Progress,
    best_path,
    check_values,
    save_checkpoint,
    save_state,
)
from tf_dpce.training.diagnostics import mean_cosine
from tf_dpce.training.ema import averaged
from tf_dpce.training.history import History

if TYPE_CHECKING:
    from tf_dpce.training.distributed import Workers


def validation_metrics(
    images: np.ndarray, texts: np.ndarray, image_ids: np.ndarray, text_ids: np.ndarray
) -> dict[str, Any]:
    """Returns what `retrieval_metrics` does, and the mean cosine of any two of a kind.

    That of images is `images_alike`, that of sentences `sentences_alike`. Arguments and errors
    are those of `retrieval_metrics`.
    """
    metrics = retrieval_metrics(images, texts, image_ids, text_ids)
    alike = {"images_alike": images, "sentences_alike": texts}
    return metrics | {name: mean_cosine(vectors) for name, vectors in alike.items()}


class Validation(keras.callbacks.Callback):
    """Adds retrieval metrics of the validation split, and what they took, to an epoch's logs.

    Where the optimizer keeps averages of the weights, they are what is validated.

    Args:
        validate: returns what `validation_metrics` does.
        every: epochs from one validation to the next; the last epoch is always validated.
        epochs: of the stage.
    """

    def __init__(self, validate: Callable[[], dict[str, Any]], every: int, epochs: int) -> None:
        super().__init__()
        self.validate = validate
        self.every = every
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every and epoch + 1 != self.epochs:
            return
        began = time.monotonic()
        with averaged(self.model.optimizer):
            metrics = self.validate()
        logs["validation_seconds"] = round(time.monotonic() - began, 1)
        logs.update(metric_logs(metrics))
        for side in ("images", "sentences"):
            logs[f"val_{side}_alike"] = metrics[f"{side}_alike"]


class SoleLoss(keras.callbacks.Callback):
    """Adds the loss of a stage that has but one to an epoch's logs.

    Keras names the parts of a sum alone: of one loss it logs no more than its weighted mean.

    Args:
        weights: of the stage's losses, by name.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = weights

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if len(self.weights) == 1:
            ((name, weight),) = self.weights.items()
            logs[f"{name}_loss"] = logs["loss"] / weight


class Checkpoints(keras.callbacks.Callback):
    """Keeps the best model of a stage, and its two newest states, to resume from.

    Where the optimizer keeps averages of the weights, they are the best model. Of several workers
    the chief writes, and all must agree on the moment.

    Args:
        run: folder of the run.
        workers: that train.
        model_variables: what evaluation needs.
        state: returns those and the rest of the state: of dropout, optimizer and metrics.
        start: where the run stands when `fit` begins.
        minutes: from one checkpoint to the next within an epoch.
        heed: called after each step; raises where the run shall stop.
    """

    def __init__(
        self,
        run: Path,
        workers: Workers,
        model_variables: Sequence[keras.Variable],
        state: Callable[[], Sequence[keras.Variable]],
        start: Progress,
        minutes: float,
        heed: Callable[[], None],
    ) -> None:
        super().__init__()
        self.run = run
        self.workers = workers
        self.model_variables = model_variables
        self.state = state
        self.progress = start
        self.seconds = 60 * minutes
        self.heed = heed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._saved = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._first_step = self.progress.step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.progress = replace(self.progress, step=self._first_step + batch + 1)
        self.heed()
        if self.workers.any_true(
            self.workers.is_chief and time.monotonic() - self._saved >= self.seconds
        ):
            self.save()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        best = self.progress.best_rsum
        rsum = logs.get("val_rsum", -1.0)
        self.progress = replace(self.progress, epoch=epoch + 1, step=0, best_rsum=max(best, rsum))
        if rsum > best and self.workers.is_chief:
            with averaged(self.model.optimizer):
                path = best_path(self.run, self.progress.stage)
                save_checkpoint(path, self.model_variables, self.progress)
        self.save()

    def save(self) -> None:
        """Writes the whole state; the one before stays beside it.

        Raises:
            UserError: a weight is NaN or infinite; the former checkpoints stay as they are.
        """
        state = self.state()
        if self.workers.is_chief:
            save_state(self.run, state, self.progress)
        else:
            # Metrics are summed over the workers while all of them read.
            check_values(state, self.progress)
        self._saved = time.monotonic()


class Stopwatch(keras.callbacks.Callback):
    """Measures steps of training, those at the start left out.

    Args:
        warm: steps at the start.

    Attributes:
        seconds: since the last of those.
    """

    def __init__(self, warm: int) -> None:
        super().__init__()
        self.warm = warm
        self.seconds = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # The logs are numbers, not tensors, so that the step has ended.
        if batch + 1 == self.warm:
            self._began = time.monotonic()
        elif batch + 1 > self.warm:
            self.seconds = time.monotonic() - self._began


class RestoreMetrics(keras.callbacks.Callback):
    """Gives the metrics back what they held when a run stopped within an epoch.

    `fit` resets metrics just before an epoch begins, after everything else is restored.

    Args:
        values: of `model.metrics_variables`.
    """

    def __init__(self, values: Sequence[np.ndarray]) -> None:
        super().__init__()
        self.values = values

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for variable, value in zip(self.model.metrics_variables, self.values, strict=True):
            variable.assign(value)
        self.values = ()


def stage_callbacks(
    run: Path,
    stage: int,
    weights: Mapping[str, float],
    validation: Validation,
    watch: keras.callbacks.Callback,
    checkpoints: Checkpoints,
    writes: bool,
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks of a stage, in the order in which they must run.

    The sole loss and the validation come first, because the others read what they log. The watch,
    which ends a training that is lost, comes before the checkpoints, which it must not reach. A
    line of history comes before the checkpoint that counts its epoch as done, so that no kill can
    lose it. Only a worker that writes has history and curves.
    """
    first = [SoleLoss(weights), validation, watch]
    if not writes:
        return [*first, checkpoints]
    tensorboard = keras.callbacks.TensorBoard(run / "tensorboard" / f"stage{stage}")
    return [*first, History(run, stage), checkpoints, tensorboard]
