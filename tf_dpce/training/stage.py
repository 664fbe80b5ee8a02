"""Trains one stage of a run: its data, its model, its callbacks, and from where it is resumed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import keras
import tensorflow as tf

from tf_dpce.config import Config
from tf_dpce.data import input_pipeline
from tf_dpce.data.caption_table import CaptionTable, captions_of_instances, encode_captions
from tf_dpce.data.feature_cache import cached_features
from tf_dpce.data.index_shuffle import IndexShuffle
from tf_dpce.data.input_pipeline import Batches
from tf_dpce.data.input_timer import InputTimer
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.teacher import Teacher
from tf_dpce.data.turned_copies import opposite_ids, with_turned_copies
from tf_dpce.errors import Stopped
from tf_dpce.evaluation.embed import inference
from tf_dpce.logging import check_stop, current_context, run_context
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.monitoring.monitor import MonitoredStage, TrainingMonitor
from tf_dpce.monitoring.norms import GradientNorms, trained_parts
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.training import callbacks
from tf_dpce.training.best_epoch import NO_SCORE
from tf_dpce.training.checkpoint import Progress
from tf_dpce.training.diagnostics import TrainingDiagnostics
from tf_dpce.training.distributed import Workers
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.model_factory import stage_trainer, to_inputs_and_targets
from tf_dpce.training.partial_fc import ClassSampler
from tf_dpce.training.resume import fit_segment, remaining_segments, restore_state
from tf_dpce.training.run_folder import run_digest

_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class TrainingContext:
    """What all stages of a run share.

    Attributes:
        config: configuration of the run.
        data: folder of prepared data.
        run: folder of the run.
        model: whole model.
        tokenizer: tokenizer of captions.
        workers: processes that train together.
        teacher: what the model learns similarities from, if anything.
        profile: number of steps of each stage to profile.
    """

    config: Config
    data: Path
    run: Path
    model: DualPath
    tokenizer: CaptionTokenizer
    workers: Workers
    teacher: Teacher | None = None
    profile: int = 0


class StageData:
    """Batches of the training split and of the validation split, as a stage reads them.

    If the stage caches the backbone's features, all of them are computed here.

    Args:
        context: what all stages share.
        number: 1 or 2.

    Attributes:
        context: what all stages share.
        number: 1 or 2.
        settings: settings of the stage.
        splits: numbers of images and captions of each split.
        order: order of the training images.
        timer: measures how long training waits for batches.
    """

    def __init__(self, context: TrainingContext, number: int) -> None:
        self.number = number
        self.settings = context.config.stage(number)
        self.context = context
        self.splits = Manifest.load(context.data).splits
        self.timer = InputTimer()
        self.order = IndexShuffle(
            seed=context.config.seed + 1000 * number,
            images=self.splits["train"].images,
            # Every second row is a turned copy.
            batch_size=self.settings.batch_size // (2 if context.config.text.opposites else 1),
            part=context.workers.index,
            parts=context.workers.count,
        )
        self._features = {}
        if self.settings.backbone == "cached":
            with context.workers.main_process_first():
                for split, views in (("train", self.settings.cached_augmentations), ("val", 1)):
                    self._features[split] = cached_features(
                        backbone=context.model.image_backbone,
                        data=context.data,
                        split=split,
                        image=context.config.image,
                        tokenizer=context.tokenizer,
                        views=views,
                        compiled=lambda backbone: inference(folded(backbone)),
                    )

    @cached_property
    def captions(self) -> CaptionTable:
        """All training captions."""
        if self._features:
            return self._features["train"].captions
        return encode_captions(self.context.data, "train", self.context.tokenizer)

    def training_batches(self, start: int, stop: int) -> Batches:
        """Returns this worker's rows of the batches of these steps, as (inputs, targets)."""
        context, config = self.context, self.context.config
        # A row's caption is drawn from those of its instance, or else from its image's own.
        of_instances = config.text.caption_pool == "instance"
        pool = captions_of_instances(self.captions) if of_instances else None
        if self._features:
            batches = self._features["train"].training_batches(
                config.text, self.order, start, stop, pool
            )
        else:
            batches = input_pipeline.training_batches(
                context.data,
                context.tokenizer,
                config.image,
                config.text,
                self.order,
                start,
                stop,
                captions=pool,
            )
        if config.text.opposites:
            opposites = opposite_ids(context.tokenizer.words, config.text.opposites)
            batches = batches.map(lambda batch: with_turned_copies(batch, opposites))
        if self.settings.loss.distillation:
            taught = context.teacher.batches(self.order, start, stop, of_instances)
            both = tf.data.Dataset.zip(batches, taught)
            batches = both.map(lambda batch, rows: {**batch, "teacher": rows})
        return self.timer.timed(batches).map(partial(to_inputs_and_targets, self.settings.loss))

    def validation_batches(self) -> tuple[Batches, Batches]:
        """Returns the images and the captions of the validation split."""
        data, image = self.context.data, self.context.config.image
        captions = input_pipeline.evaluation_captions(
            data, "val", self.context.tokenizer, _EVALUATION_BATCH
        )
        if self._features:
            return self._features["val"].evaluation_images(_EVALUATION_BATCH), captions
        images = input_pipeline.evaluation_images(
            data, "val", image.input_size, _EVALUATION_BATCH, image.resize
        )
        return images, captions


def train_stage(context: TrainingContext, number: int, resume: bool) -> None:
    """Trains a stage to its end.

    Args:
        context: what all stages share; the model has the weights that the stage starts from.
        number: 1 or 2.
        resume: whether to restore the newest state of the stage first.

    Raises:
        UserError: the state is damaged or of another model, or the training diverged.
        Stopped: a stop was requested; the state is saved.
    """
    run, workers, settings = context.run, context.workers, context.config.stage(number)
    data = StageData(context, number)
    trainer = compile_trainer(data)
    state = state_variables(context.model, trainer)
    digest = run_digest(run) if workers.is_chief else ""
    start, metrics = Progress(number, epoch=0, step=0, best_score=NO_SCORE, run=digest), []
    if resume:
        start, metrics = restore_state(context, number, state, trainer.metrics_variables)

    report = callbacks.EpochReport(run, number, settings.epochs)
    monitor = _monitor(data, trainer, start)
    checkpoints = callbacks.Checkpoints(
        context, data.splits["val"].images, lambda: [*state, *trainer.metrics_variables], start
    )
    # The validation comes before those that read what it logs. The diagnostics, which end a
    # training that is lost, come before the checkpoints, which that training must not reach. The
    # report adds its row of history, and the monitor its points, before the checkpoint that counts
    # the epoch as done, so that no kill can lose them.
    everyone = [
        callbacks.RestoreMetrics(metrics),
        callbacks.Validation(data, see=monitor.see if workers.is_chief else None),
        TrainingDiagnostics(number, settings, data.order.steps_per_epoch, data.timer, workers),
        *([report, monitor] if workers.is_chief else []),
        checkpoints,
    ]
    asked = current_context().stop_requested
    # All workers ask after the same steps, and stop together if one of them was asked to.
    with run_context(stop_requested=lambda: workers.any_true(asked())):
        check_stop(callbacks.stop_message(number))
        try:
            for segment in remaining_segments(start, settings.epochs, data.order.steps_per_epoch):
                rows = data.training_batches(segment.first_step, segment.stop_step)
                fit_segment(trainer, segment, workers.distribute(rows), everyone)
        except Stopped:
            checkpoints.save()
            raise
        finally:
            report.close()
            monitor.close()


def _monitor(data: StageData, trainer: DualPathTrainer, start: Progress) -> TrainingMonitor:
    context = data.context
    stage = MonitoredStage(
        config=context.config,
        number=data.number,
        data=context.data,
        run=context.run,
        epoch=start.epoch,
        step=start.step,
        steps_per_epoch=data.order.steps_per_epoch,
        profile=context.profile,
    )
    return TrainingMonitor(stage, data.timer, trainer.optimizer.gradient_norms)


def compile_trainer(data: StageData) -> DualPathTrainer:
    """Returns what a stage fits, compiled and with the variables of its metrics."""
    config, model, settings = data.context.config, data.context.model, data.settings
    loss, seed = settings.loss, data.order.seed
    hard_negatives, sampler = None, None
    if loss.mines_negatives:
        hard_negatives = HardNegatives(data.captions, loss.candidates, config.text.shift, seed)
    with data.context.workers.strategy.scope():
        if config.model.sampled_negatives and (loss.image_instance or loss.text_instance):
            # A mined caption brings a class of its own.
            labels = settings.batch_size * (2 if loss.mines_negatives else 1)
            negatives = config.model.sampled_negatives
            sampler = ClassSampler(model.num_instances, negatives, labels, seed)
        steps = data.order.steps_per_epoch
        trainer = stage_trainer(settings, model, steps, hard_negatives, sampler)
        trainer.optimizer.gradient_norms = GradientNorms(trained_parts(trainer), steps)
    trainer.build_metrics(data.training_batches(0, 1).element_spec)
    return trainer


def state_variables(model: DualPath, trainer: DualPathTrainer) -> list[keras.Variable]:
    """Returns the variables that a run is resumed from, each once, the model's own first."""
    known = {id(v) for v in model.variables}
    others = [v for v in trainer.variables if id(v) not in known]
    slots = trainer.partial_fc.slots if trainer.partial_fc else []
    return [*model.variables, *others, *trainer.optimizer.variables, *slots]
