"""The Keras callback that writes what TensorBoard shows of a stage while it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorboard.compat.proto.summary_pb2 import Summary

from tf_dpce.config import Config
from tf_dpce.data.input_timer import InputTimer
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError, shorten
from tf_dpce.evaluation.embed import Embeddings
from tf_dpce.logging import logger
from tf_dpce.monitoring.curves import Curves
from tf_dpce.monitoring.description import describe
from tf_dpce.monitoring.event_file import EventFile, scalars
from tf_dpce.monitoring.norms import GradientNorms, learning_rates, trained_parts, weight_norms
from tf_dpce.monitoring.profiler import Profiler
from tf_dpce.monitoring.validation_view import ValidationView

Logs = dict[str, Any]


@dataclass(frozen=True)
class MonitoredStage:
    """The stage that is monitored, and where it begins or is resumed.

    Attributes:
        config: configuration of the run.
        number: 1 or 2.
        data: folder of prepared data.
        run: folder of the run.
        epoch: finished epochs when `fit` begins.
        step: finished steps of the next epoch.
        steps_per_epoch: steps of an epoch.
        profile: number of steps to profile.
    """

    config: Config
    number: int
    data: Path
    run: Path
    epoch: int
    step: int
    steps_per_epoch: int
    profile: int = 0

    def folder(self, name: str) -> Path:
        """Returns the folder of a TensorBoard run of the stage."""
        return self.run / "tensorboard" / f"stage{self.number}" / name

    @property
    def first_step(self) -> int:
        """The first step, counted from 1, that is still to be written; 0 if nothing is."""
        done = self.epoch * self.steps_per_epoch + self.step
        # The last step of an epoch is written at its end, which is still to come.
        return done + 1 if done and self.step != self.steps_per_epoch else done


class TrainingMonitor(keras.callbacks.Callback):
    """Writes curves, images, histograms and the projector of a stage for TensorBoard.

    It shows what the training computes anyway: nothing is embedded again. It comes behind the
    validation, whose logs it reads, and before the checkpoints, so that a process that is killed
    loses no point that its checkpoint counts as done. If a file cannot be written, it warns once,
    and the training goes on.

    Args:
        stage: what is monitored.
        timer: measures how long training waits for batches.
        norms: measures gradients.
    """

    def __init__(self, stage: MonitoredStage, timer: InputTimer, norms: GradientNorms) -> None:
        super().__init__()
        self._stage = stage
        self._settings = stage.config.stage(stage.number)
        self._norms = norms
        self._curves = Curves(self._settings, timer)
        self._training = EventFile(stage.folder("train"), stage.first_step)
        self._validation = EventFile(stage.folder("validation"), stage.first_step)
        self._profiler = Profiler(stage.folder("train"), stage.profile)
        self._embeddings: tuple[Embeddings, Embeddings] | None = None
        self._is_described = stage.first_step > 0
        self._has_warned = False

    def see(self, images: Embeddings, texts: Embeddings) -> None:
        """Takes the embeddings of a validation, which the end of the epoch shows."""
        self._embeddings = (images, texts)

    def close(self) -> None:
        """Ends a profile that has not all its steps."""
        with self._goes_on():
            self._profiler.close()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._parts = trained_parts(self.model)
        if not self._is_described:
            self._is_described = True
            stage, manifest = self._stage, Manifest.load(self._stage.data)
            summaries = describe(stage.config, manifest, stage.run.name, stage.number)
            self._add(self._validation, 0, *summaries)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        # Only the first epoch can have begun before.
        self._first = self._stage.step if epoch == self._stage.epoch else 0
        self._epoch, self._last_point = epoch, {}
        self._curves.begin_epoch(self._first)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        with self._goes_on():
            self._profiler.begin_step()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        with self._goes_on():
            self._profiler.end_step()
        done = self._first + batch + 1
        self._curves.end_step(done)
        if not self._norms.is_measured(done):
            return
        point = self._curves.point(logs, done) | self._model_state()
        if done == self._stage.steps_per_epoch:
            # It is written with the validation: both are there, or none.
            self._last_point = point
        else:
            step = self._epoch * self._stage.steps_per_epoch + done
            self._add(self._training, step, scalars(point))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        step = (epoch + 1) * self._stage.steps_per_epoch
        norms = {f"weight_norm/{part}": v for part, v in weight_norms(self._parts).items()}
        self._add(self._training, step, scalars(self._last_point | norms))
        if self._embeddings:
            found = {f"validation/{k[4:]}": v for k, v in logs.items() if k.startswith("val_")}
            self._add(self._validation, step, scalars(found))
            with self._goes_on():
                self._validation.add(step, *self._view.summaries(*self._embeddings))
                self._view.project(*self._embeddings, epoch + 1 == self._settings.epochs)
        self._embeddings = None

    @cached_property
    def _view(self) -> ValidationView:
        stage = self._stage
        return ValidationView(stage.config, stage.data, stage.folder("validation"))

    def _model_state(self) -> dict[str, float]:
        optimizer = self.model.optimizer
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        rates = learning_rates(rate, optimizer.multipliers, self._parts)
        values = {f"learning_rate/{part}": value for part, value in rates.items()}
        return values | {f"gradient_norm/{k}": v for k, v in self._norms.values().items()}

    def _add(self, file: EventFile, step: int, *summaries: Summary) -> None:
        with self._goes_on():
            file.add(step, *summaries)

    @contextmanager
    def _goes_on(self) -> Iterator[None]:
        """Warns, once, of files that cannot be read or written, in place of failing."""
        try:
            yield
        except (OSError, UserError, tf.errors.OpError) as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    f"TensorBoard will not show all of stage {self._stage.number}: "
                    f"{shorten(str(error), 300)}: training goes on"
                )
