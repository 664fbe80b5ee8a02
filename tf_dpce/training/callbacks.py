"""Callbacks of a stage. Their order is behaviour: `stage.train_stage` decides it."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.embed import Batches, Embeddings, Encoders
from tf_dpce.evaluation.metrics import metric_logs, retrieval_metrics
from tf_dpce.files import publish_file
from tf_dpce.logging import check_stop, duration, logger, progress, tracked
from tf_dpce.training import checkpoint
from tf_dpce.training.best_epoch import epoch_score
from tf_dpce.training.diagnostics import mean_cosine
from tf_dpce.training.objective import loss_weights
from tf_dpce.training.optimizers import averaged

if TYPE_CHECKING:
    from tf_dpce.training.stage import StageData, TrainingContext

HISTORY_FILE = "history.csv"
_COLUMNS = (
    *("stage", "epoch", "epoch_seconds", "validation_seconds", "input_share", "learning_rate"),
    *("loss", "image_logits_loss", "text_logits_loss", "pair_loss", "distillation_loss"),
    *("val_rsum", "val_meanr"),
    *(f"val_i2t_{rank}" for rank in ("r1", "r5", "r10", "medr", "meanr")),
    *(f"val_t2i_{rank}" for rank in ("r1", "r5", "r10", "medr", "meanr")),
)

Logs = dict[str, Any]


class Validation(keras.callbacks.Callback):
    """Completes the logs of an epoch: the sole loss by its name, and the metrics of a validation.

    If the optimizer keeps averages of the weights, it validates them.

    Args:
        data: data of the stage.
        see: is given the embeddings of the images and of the captions, if it is given itself.
    """

    def __init__(
        self, data: StageData, see: Callable[[Embeddings, Embeddings], None] | None = None
    ) -> None:
        super().__init__()
        self.data = data
        self._see = see
        self._images, self._captions = data.validation_batches()
        # Made by the first validation, and traced once for all.
        self._encoders = cache(lambda: Encoders(self.model))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        settings = self.data.settings
        weights = loss_weights(settings.loss)
        if len(weights) == 1:
            # Keras logs a sole loss only as the weighted `loss`.
            ((name, weight),) = weights.items()
            logs[f"{name}_loss"] = logs["loss"] / weight
        if (epoch + 1) % settings.validate_every and epoch + 1 != settings.epochs:
            return
        began = time.monotonic()
        with averaged(self.model.optimizer):
            logs.update(self._validate())
        logs["validation_seconds"] = round(time.monotonic() - began, 1)

    def _validate(self) -> Logs:
        encoders = self._encoders()
        images = encoders.images(self._stoppable(self._images))
        texts = encoders.texts(self._stoppable(self._captions))
        metrics = retrieval_metrics(*images.compared_with(texts))
        if self._see:
            self._see(images, texts)
        cosines = {"val_image_cosine": images, "val_caption_cosine": texts}
        return metric_logs(metrics) | {k: mean_cosine(v.vectors) for k, v in cosines.items()}

    def _stoppable(self, batches: Batches) -> Batches:
        for batch in tracked(batches, "validation batches"):
            yield batch
            check_stop(stop_message(self.data.number))


class EpochReport(keras.callbacks.Callback):
    """Shows an epoch while it lasts; at its end it logs a line and adds one to `history.csv`.

    Times are those of the epoch with its validation; of a resumed epoch, those since then.

    Args:
        run: folder of the run.
        stage: 1 or 2.
        epochs: number of epochs of the stage.
    """

    def __init__(self, run: Path, stage: int, epochs: int) -> None:
        super().__init__()
        self.path = run / HISTORY_FILE
        self.stage = stage
        self.epochs = epochs
        self._recall = ""
        self._open = ExitStack()

    def close(self) -> None:
        """Closes the display, also if the training ends within an epoch."""
        self._open.close()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._began = time.monotonic()
        self._title = f"stage {self.stage}, epoch {epoch + 1} of {self.epochs}"
        self._display = self._open.enter_context(progress(self._title, transient=True))

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        note = f"loss {float(logs['loss']):.3g}{self._recall}"
        self._display.update(batch + 1, total=self.params.get("steps"), note=note)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        seconds = time.monotonic() - self._began
        self.close()
        self._add_to_history(epoch, seconds, logs)
        if "val_rsum" in logs:
            self._recall = f", R@1 {logs['val_i2t_r1']:.1f}/{logs['val_t2i_r1']:.1f}"
        recall = self._recall and f"{self._recall} (image to text/text to image)"
        left = seconds * (self.epochs - epoch - 1)
        line = f"{self._title}: loss {logs['loss']:.3g}{recall}, {duration(seconds)}"
        line += f", about {duration(left)} left" if left else ""
        numbers = {name: logs[name] for name in _COLUMNS if name in logs}
        fields = {"event": "epoch", "stage": self.stage, "epoch": epoch + 1, "epochs": self.epochs}
        fields |= {**numbers, "epoch_seconds": round(seconds, 1), "seconds_left": round(left, 1)}
        logger.info(line, extra={"fields": fields})

    def _add_to_history(self, epoch: int, seconds: float, logs: Logs) -> None:
        row = {
            **logs,
            "stage": self.stage,
            "epoch": epoch + 1,
            "epoch_seconds": round(seconds, 1),
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
        }
        rows = [*read_history(self.path, before=(self.stage, epoch + 1)), row]
        with publish_file(self.path) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, _COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def read_history(path: Path, before: tuple[int, int]) -> list[dict[str, str]]:
    """Returns the rows of a `history.csv` before a (stage, epoch).

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [row for row in rows if (int(row["stage"]), int(row["epoch"])) < before]
    except (csv.Error, KeyError, TypeError, ValueError):
        raise UserError(
            "run.history",
            f"{path} is damaged: put a copy back, or remove it, which loses its rows and no more",
            path,
        ) from None


class Checkpoints(keras.callbacks.Callback):
    """Saves the best weights of a stage and the states to resume from, and stops if it is asked to.

    If the optimizer keeps averages of the weights, the averages are the best weights. The chief
    writes; all workers must agree on the moment, because sums over the workers are read.

    Args:
        context: what all stages share.
        validation_images: number of images that an epoch is validated by.
        state: returns the variables of model, dropout, optimizer and metrics.
        start: progress when `fit` begins.
    """

    def __init__(
        self,
        context: TrainingContext,
        validation_images: int,
        state: Callable[[], Sequence[keras.Variable]],
        start: checkpoint.Progress,
    ) -> None:
        super().__init__()
        self.context = context
        self.validation_images = validation_images
        self.state = state
        self.progress = start

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._saved = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._first_step = self.progress.step

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.progress = replace(self.progress, step=self._first_step + batch + 1)
        check_stop(stop_message(self.progress.stage))
        is_time = time.monotonic() - self._saved >= 60 * self.context.config.checkpoint_minutes
        workers = self.context.workers
        if workers.any_true(workers.is_chief and is_time):
            self.save()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.progress = replace(self.progress, epoch=epoch + 1, step=0)
        if "val_rsum" in logs:
            score = epoch_score(logs, self.validation_images)
            # Of epochs with one score the later has learnt more.
            if score >= self.progress.best_score:
                self.progress = replace(self.progress, best_score=score)
                self._save_best()
        self.save()

    def _save_best(self) -> None:
        if self.context.workers.is_chief:
            with averaged(self.model.optimizer):
                path = checkpoint.best_path(self.context.run, self.progress.stage)
                checkpoint.save_checkpoint(path, self.context.model.variables, self.progress)

    def save(self) -> None:
        """Saves the state.

        Raises:
            UserError: a weight is out of range; the older states stay.
        """
        state = self.state()
        if self.context.workers.is_chief:
            checkpoint.save_state(self.context.run, state, self.progress)
        else:
            # Metrics are summed over the workers while all of them read.
            checkpoint.check_values(state, self.progress)
        self._saved = time.monotonic()


def stop_message(stage: int) -> str:
    """Returns what to say of a training that stopped as it was asked to."""
    return f"stopped in stage {stage}: give the same command with --resume to continue"


class RestoreMetrics(keras.callbacks.Callback):
    """Gives the metrics the values that they had when the run stopped within an epoch.

    `fit` resets metrics just before an epoch begins, after everything else is restored.

    Args:
        values: values of `model.metrics_variables`, or none.
    """

    def __init__(self, values: Sequence[np.ndarray]) -> None:
        super().__init__()
        self.values = values

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        # Only the first epoch can have begun before.
        if self.values:
            for variable, value in zip(self.model.metrics_variables, self.values, strict=True):
                variable.assign(value)
        self.values = ()
