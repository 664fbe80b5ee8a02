"""Trains one stage of a run: its data, its model, its callbacks, and from where it is resumed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import keras

from tf_dpce.config import Config
from tf_dpce.data.caption_table import CaptionTable, InstanceCaptions, encode_captions
from tf_dpce.data.feature_cache import cached_features
from tf_dpce.data.index_shuffle import IndexShuffle
from tf_dpce.data.input_pipeline import (
    Batches,
    evaluation_captions,
    evaluation_images,
    training_batches,
)
from tf_dpce.data.input_timer import InputTimer
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import Stopped
from tf_dpce.evaluation.embed import Encoders, inference
from tf_dpce.evaluation.metrics import retrieval_metrics
from tf_dpce.logging import check_stop, current_context, run_context
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.training.callbacks import (
    Checkpoints,
    EpochReport,
    RestoreMetrics,
    Validation,
    stage_callbacks,
    stop_message,
)
from tf_dpce.training.checkpoint import Progress
from tf_dpce.training.diagnostics import TrainingDiagnostics, mean_cosine
from tf_dpce.training.distributed import Workers
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.model_factory import loss_weights, stage_trainer, to_inputs_and_targets
from tf_dpce.training.partial_fc import ClassSampler
from tf_dpce.training.restore import restore_state
from tf_dpce.training.resume import fit_segment, remaining_segments
from tf_dpce.training.run_folder import run_digest

_EVALUATION_BATCH = 64


class StageData:
    """Batches of the training split and of the validation split, as a stage reads them.

    If the stage caches the backbone's features, all of them are computed here.

    Args:
        number: 1 or 2.
        config: configuration of the run.
        data: folder of prepared data.
        model: whole model.
        tokenizer: tokenizer of captions.
        workers: processes that train together.

    Attributes:
        order: order of the training images.
        timer: measures how long training waits for batches.
    """

    def __init__(
        self,
        number: int,
        config: Config,
        data: Path,
        model: DualPath,
        tokenizer: CaptionTokenizer,
        workers: Workers,
    ) -> None:
        settings = config.stage(number)
        self._loss, self._image, self._text = settings.loss, config.image, config.text
        self._data = data
        self._tokenizer = tokenizer
        self._splits = Manifest.load(data).splits
        self.timer = InputTimer()
        self.order = IndexShuffle(
            seed=config.seed + 1000 * number,
            images=self._splits["train"].images,
            batch_size=settings.batch_size,
            part=workers.index,
            parts=workers.count,
        )
        self._features = {}
        if settings.backbone == "cached":
            with workers.main_process_first():
                for split, views in (("train", settings.cached_augmentations), ("val", 1)):
                    self._features[split] = cached_features(
                        backbone=model.image_backbone,
                        data=data,
                        split=split,
                        image=config.image,
                        tokenizer=tokenizer,
                        views=views,
                        compiled=lambda backbone: inference(folded(backbone)),
                    )

    @cached_property
    def captions(self) -> CaptionTable:
        """All training captions."""
        if self._features:
            return self._features["train"].captions
        return encode_captions(self._data, "train", self._tokenizer)

    @cached_property
    def _caption_of(self) -> InstanceCaptions | None:
        """Draws a row's caption from those of its instance; None draws it from its image's own."""
        return InstanceCaptions(self.captions) if self._text.caption_pool == "instance" else None

    def training_batches(self, start: int, stop: int) -> Batches:
        """Returns this worker's rows of the batches of these steps, as (inputs, targets)."""
        if self._features:
            batches = self._features["train"].training_batches(
                self._text, self.order, start, stop, self._caption_of
            )
        else:
            batches = training_batches(
                self._data,
                self._tokenizer,
                self._image,
                self._text,
                self.order,
                start,
                stop,
                captions=self._caption_of,
            )
        return self.timer.timed(batches).map(partial(to_inputs_and_targets, self._loss))

    def validator(self, trainer: DualPathTrainer, check: Callable[..., None]) -> Callable[[], dict]:
        """Returns a function that embeds the validation split and returns its metrics.

        Args:
            trainer: model that is trained.
            check: called after each batch; may raise `Stopped`.
        """
        split = self._splits["val"]
        if self._features:
            images = self._features["val"].evaluation_images(_EVALUATION_BATCH)
        else:
            images = evaluation_images(
                self._data, "val", self._image.input_size, _EVALUATION_BATCH, self._image.resize
            )
        captions = evaluation_captions(self._data, "val", self._tokenizer, _EVALUATION_BATCH)
        # Made by the first validation, and traced once for all.
        encoders = cache(lambda: Encoders(trainer))

        def validate() -> dict[str, Any]:
            found = encoders().images(images, split.images, check)
            texts = encoders().texts(captions, split.captions, check)
            metrics = retrieval_metrics(
                found.vectors, texts.vectors, found.instances, texts.instances
            )
            cosines = {"image": mean_cosine(found.vectors), "caption": mean_cosine(texts.vectors)}
            return metrics | {"logs": {f"val_{k}_cosine": v for k, v in cosines.items()}}

        return validate


def train_stage(
    number: int,
    config: Config,
    data: Path,
    run: Path,
    model: DualPath,
    tokenizer: CaptionTokenizer,
    workers: Workers,
    resume: bool,
) -> None:
    """Trains a stage to its end.

    Args:
        number: 1 or 2.
        config: configuration of the run.
        data: folder of prepared data.
        run: folder of the run.
        model: whole model, with the weights that the stage starts from.
        tokenizer: tokenizer of captions.
        workers: processes that train together.
        resume: whether to restore the newest state of the stage first.

    Raises:
        UserError: the state is damaged or of another model, or the training diverged.
        Stopped: a stop was requested; the state is saved.
    """
    settings = config.stage(number)
    stage_data = StageData(number, config, data, model, tokenizer, workers)
    trainer = compile_stage_trainer(number, config, model, stage_data, workers)
    state = state_variables(model, trainer)
    digest = run_digest(run) if workers.is_chief else ""
    start, metrics = Progress(number, epoch=0, step=0, best_rsum=-1.0, run=digest), []
    if resume:
        start, metrics = restore_state(workers, run, number, state, trainer.metrics_variables)

    def check(*done: int) -> None:
        check_stop(stop_message(number))

    report = EpochReport(run, number, settings.epochs)
    checkpoints = Checkpoints(
        run=run,
        workers=workers,
        model_variables=model.variables,
        state=lambda: [*state, *trainer.metrics_variables],
        start=start,
        minutes=config.checkpoint_minutes,
    )
    steps = stage_data.order.steps_per_epoch
    callbacks = stage_callbacks(
        restore=RestoreMetrics(metrics),
        validation=Validation(
            validate=stage_data.validator(trainer, check),
            every=settings.validate_every,
            epochs=settings.epochs,
            weights=loss_weights(settings.loss),
        ),
        diagnostics=TrainingDiagnostics(
            number, settings.loss, settings.epochs, stage_data.timer, workers
        ),
        report=report,
        checkpoints=checkpoints,
        tensorboard=run / "tensorboard" / f"stage{number}",
    )
    asked = current_context().stop_requested
    # All workers ask after the same steps, and stop together if one of them was asked to.
    with run_context(stop_requested=lambda: workers.any_true(asked())):
        check()
        try:
            for segment in remaining_segments(start, settings.epochs, steps):
                rows = stage_data.training_batches(segment.first_step, segment.stop_step)
                fit_segment(trainer, segment, workers.distribute(rows), callbacks)
        except Stopped:
            checkpoints.save()
            raise
        finally:
            report.close()


def compile_stage_trainer(
    number: int, config: Config, model: DualPath, stage_data: StageData, workers: Workers
) -> DualPathTrainer:
    """Returns what a stage fits, compiled and with the variables of its metrics."""
    settings, order = config.stage(number), stage_data.order
    loss, negatives = settings.loss, config.model.sampled_negatives
    hard_negatives, sampler = None, None
    if loss.mines_negatives:
        hard_negatives = HardNegatives(
            stage_data.captions, loss.candidates, config.text.shift, order.seed
        )
    with workers.strategy.scope():
        if negatives and (loss.image_instance or loss.text_instance):
            # A mined caption brings a class of its own.
            labels = settings.batch_size * (2 if loss.mines_negatives else 1)
            sampler = ClassSampler(model.num_instances, negatives, labels, order.seed)
        trainer = stage_trainer(settings, model, order.steps_per_epoch, hard_negatives, sampler)
    trainer.build_metrics(stage_data.training_batches(0, 1).element_spec)
    return trainer


def state_variables(model: DualPath, trainer: DualPathTrainer) -> list[keras.Variable]:
    """Returns the variables that a run is resumed from, each once, the model's own first."""
    known = {id(v) for v in model.variables}
    others = [v for v in trainer.variables if id(v) not in known]
    slots = trainer.partial_fc.slots if trainer.partial_fc else []
    return [*model.variables, *others, *trainer.optimizer.variables, *slots]
