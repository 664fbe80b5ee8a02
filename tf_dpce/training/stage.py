"""The two stages: what is trained, on which batches, from where a run stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_dpce.config import Config, StageConfig
from tf_dpce.data.index_shuffle import Order
from tf_dpce.data.input_pipeline import (
    Batches,
    evaluation_captions,
    evaluation_images,
    training_batches,
)
from tf_dpce.data.input_timer import Waiting
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import Stopped
from tf_dpce.evaluation.embed import Encoders
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.training.callbacks import (
    Checkpoints,
    RestoreMetrics,
    Stopwatch,
    Validation,
    stage_callbacks,
    validation_metrics,
)
from tf_dpce.training.caption_table import CaptionTable, InstanceCaptions, encode_captions
from tf_dpce.training.checkpoint import Progress
from tf_dpce.training.diagnostics import Watch
from tf_dpce.training.distributed import Workers
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.features import Bar, FeatureCache, cached_features
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.model_factory import loss_weights, stage_trainer, to_inputs_and_targets
from tf_dpce.training.partial_fc import ClassSampler
from tf_dpce.training.restore import restore_state
from tf_dpce.training.resume import fit_part, parts_left
from tf_dpce.training.run_folder import run_digest

_EVALUATION_BATCH = 64


@dataclass
class Stage:
    """One stage of a run, ready to be fitted.

    Attributes:
        number: 1 or 2.
        config: of the run.
        data: folder of prepared data.
        run: folder of the run.
        model: the whole model.
        tokenizer: of captions.
        workers: that train it together.
        progress: makes the bar of images while features are cached.
        say: called with a line now and then.
        heed: called now and then; raises `Stopped` where the stage shall stop.
    """

    number: int
    config: Config
    data: Path
    run: Path
    model: DualPath
    tokenizer: CaptionTokenizer
    workers: Workers
    progress: Bar
    say: Callable[[str], None] = lambda line: None
    heed: Callable[..., None] = lambda *done: None

    @property
    def settings(self) -> StageConfig:
        """This stage's part of the configuration."""
        return self.config.stage(self.number)

    def fit(self, resume: bool, verbose: int) -> None:
        """Trains to the end of the stage, from its last checkpoint where `resume` finds one.

        Args:
            resume: whether to look for a checkpoint.
            verbose: Keras's: 0 silent, 1 a bar, 2 a line an epoch.

        Raises:
            UserError: a checkpoint that is damaged or of another model.
            Stopped: `heed` asked for it; the checkpoint is where the stage stands.
        """
        order = self._order()
        network = self._compile(order)
        network.build_metrics(self._rows(order, 0, 1).element_spec)
        start, metrics = self._start(network, resume)
        self.heed()
        checkpoints = self._checkpoints(network, start)
        watch = Watch(
            *(self.number, self.settings.loss, self.settings.epochs),
            *(self._waiting, self.say, self.workers.all_gather),
        )
        weights = loss_weights(self.settings.loss)
        callbacks = stage_callbacks(
            *(self.run, self.number, weights),
            *(self._validation(network), watch, checkpoints),
            writes=self.workers.is_chief,
        )
        for part in parts_left(start, self.settings.epochs, order.steps_per_epoch):
            # Only the first part can begin within an epoch, with metrics half full.
            restore, metrics = [RestoreMetrics(metrics)] if metrics else [], []
            batches = self._batches(order, part.first_step, part.stop_step)
            try:
                fit_part(network, part, batches, [*restore, *callbacks], verbose)
            except Stopped:
                checkpoints.save()
                raise

    def seconds_per_step(self, warm: int, timed: int) -> float:
        """Measures a step of training, its input included; what it trains is of no use after.

        Args:
            warm: steps that come first and do not count.
            timed: steps whose mean is taken.
        """
        order, watch = self._order(), Stopwatch(warm)
        self._compile(order).fit(
            self._batches(order, 0, warm + timed),
            steps_per_epoch=warm + timed,
            callbacks=[watch],
            verbose=0,
            shuffle=False,
        )
        return watch.seconds / timed

    def _order(self) -> Order:
        images = Manifest.load(self.data).splits["train"].images
        return Order(
            *(self.config.seed + 1000 * self.number, images, self.settings.batch_size),
            *(self.workers.index, self.workers.count),
        )

    def _compile(self, order: Order) -> DualPathTrainer:
        settings = self.settings
        hard_negatives = self._hard_negatives(order.seed) if settings.loss.mines_negatives else None
        with self.workers.strategy.scope():
            sampler = self._sampler(order.seed)
            return stage_trainer(
                settings, self.model, order.steps_per_epoch, hard_negatives, sampler
            )

    def _sampler(self, seed: int) -> ClassSampler | None:
        loss, negatives = self.settings.loss, self.config.model.sampled_negatives
        if not negatives or not (loss.image_instance or loss.text_instance):
            return None
        # A mined caption brings a class of its own.
        labels = self.settings.batch_size * (2 if loss.mines_negatives else 1)
        return ClassSampler(self.model.num_instances, negatives, labels, seed)

    def _hard_negatives(self, seed: int) -> HardNegatives:
        count, shift = self.settings.loss.candidates, self.config.text.shift
        return HardNegatives(self._table, count, shift, seed)

    def _state(self, network: DualPathTrainer) -> list[keras.Variable]:
        """Returns the variables that a run resumes from, each once, the model's own first."""
        known = {id(v) for v in self.model.variables}
        rest = [v for v in network.variables if id(v) not in known]
        slots = network.partial_fc.slots if network.partial_fc else []
        return [*self.model.variables, *rest, *network.optimizer.variables, *slots]

    def _start(self, network: DualPathTrainer, resume: bool) -> tuple[Progress, list[np.ndarray]]:
        """Returns where the stage begins, and the metrics of an epoch that it is within."""
        if resume:
            return restore_state(
                workers=self.workers,
                run=self.run,
                stage=self.number,
                variables=self._state(network),
                metrics=network.metrics_variables,
            )
        own = run_digest(self.run) if self.workers.is_chief else ""
        return Progress(self.number, 0, 0, -1.0, own), []

    def _checkpoints(self, network: DualPathTrainer, start: Progress) -> Checkpoints:
        return Checkpoints(
            self.run,
            self.workers,
            self.model.variables,
            lambda: [*self._state(network), *network.metrics_variables],
            start,
            self.config.checkpoint_minutes,
            self.heed,
        )

    def _validation(self, network: DualPathTrainer) -> Validation:
        settings = self.settings
        return Validation(self._validator(network), settings.validate_every, settings.epochs)

    def _batches(self, order: Order, start: int, stop: int) -> Batches:
        return self.workers.distribute(self._rows(order, start, stop))

    def _rows(self, order: Order, start: int, stop: int) -> Batches:
        text = self.config.text
        if self.settings.backbone == "cached":
            batches = self._features.training_batches(text, order, start, stop, self._captions)
        else:
            batches = training_batches(
                *(self.data, self.tokenizer, self.config.image, text, order, start, stop),
                captions=self._captions,
            )
        return self._waiting.within(batches).map(partial(to_inputs_and_targets, self.settings.loss))

    def _validator(self, network: DualPathTrainer) -> Callable[[], dict[str, Any]]:
        info = Manifest.load(self.data).splits["val"]
        if self.settings.backbone == "cached":
            images = self._cache("val", views=1).evaluation_images(_EVALUATION_BATCH)
        else:
            image = self.config.image
            images = evaluation_images(
                self.data, "val", image.input_size, _EVALUATION_BATCH, image.resize
            )
        captions = evaluation_captions(self.data, "val", self.tokenizer, _EVALUATION_BATCH)

        encoders = cache(lambda: Encoders(network))

        def validate() -> dict[str, Any]:
            embedded_images = encoders().images(images, info.images, self.heed)
            texts = encoders().texts(captions, info.captions, self.heed)
            return validation_metrics(
                embedded_images.vectors, texts.vectors, embedded_images.instances, texts.instances
            )

        return validate

    @cached_property
    def _waiting(self) -> Waiting:
        return Waiting()

    @cached_property
    def _table(self) -> CaptionTable:
        if self.settings.backbone == "cached":
            return self._features.captions
        return encode_captions(self.data, "train", self.tokenizer)

    @cached_property
    def _captions(self) -> InstanceCaptions | None:
        """What draws a row's caption; None where it is one of the image's own."""
        own = self.config.text.caption_pool == "image"
        return None if own else InstanceCaptions(self._table)

    @cached_property
    def _features(self) -> FeatureCache:
        return self._cache("train", self.settings.cached_augmentations)

    def _cache(self, split: str, views: int) -> FeatureCache:
        backbone = self.model.image_backbone
        place = (self.data, split, self.config.image, self.tokenizer)
        with self.workers.main_process_first():
            return cached_features(backbone, *place, views, self.progress)
