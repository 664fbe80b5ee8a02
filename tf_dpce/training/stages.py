"""The two stages: what is trained, on which batches, from where a run stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_dpce.config import Config, StageConfig
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.order import Order
from tf_dpce.data.pipeline import (
    Batches,
    evaluation_captions,
    evaluation_images,
    training_batches,
)
from tf_dpce.evaluation.embed import embed_images, embed_texts
from tf_dpce.evaluation.metrics import retrieval_metrics
from tf_dpce.model import DualPath
from tf_dpce.preprocessing.text import CaptionEncoder
from tf_dpce.training.build import stage_losses
from tf_dpce.training.callbacks import Checkpoints, RestoreMetrics, Validation, stage_callbacks
from tf_dpce.training.captions import encode_captions
from tf_dpce.training.checkpoint import Progress, checkpoint_path, restore_checkpoint
from tf_dpce.training.features import Bar, FeatureCache, cached_features
from tf_dpce.training.mining import Candidates, MinedDualPath
from tf_dpce.training.optimizers import stage_optimizer
from tf_dpce.training.sampling import MinedSampledDualPath, SampledDualPath, Sampler
from tf_dpce.training.schedule import stage_schedule

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
        encoder: of captions.
        strategy: the devices.
        progress: makes the bar of pictures while features are cached.
    """

    number: int
    config: Config
    data: Path
    run: Path
    model: DualPath
    encoder: CaptionEncoder
    strategy: tf.distribute.Strategy
    progress: Bar

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
            UserError: a checkpoint of another model.
        """
        splits = Manifest.load(self.data).splits
        order = Order(
            self.config.seed + 1000 * self.number,
            splits["train"].pictures,
            self.settings.batch_size,
        )
        network = self._compile(order)
        start, metrics = Progress(self.number, 0, 0, -1.0), []
        last = checkpoint_path(self.run, self.number, "last")
        if resume and last.exists():
            start, metrics = restore_checkpoint(last, self._state(network))
        callbacks = self._callbacks(network, start)
        for part in _parts(start, self.settings.epochs, order.steps_per_epoch):
            # Only the first part can begin within an epoch, with metrics half full.
            restore, metrics = [RestoreMetrics(metrics)] if part.skipped else [], []
            network.fit(
                self._batches(order, part.first_step, part.stop_step),
                initial_epoch=part.first_epoch,
                epochs=part.stop_epoch,
                steps_per_epoch=order.steps_per_epoch - part.skipped,
                callbacks=[*restore, *callbacks],
                verbose=verbose,
                shuffle=False,
            )

    def _compile(self, order: Order) -> DualPath:
        """Returns the network that is trained: the model, or all of it behind the trunk."""
        settings = self.settings
        losses, weights = stage_losses(settings.loss)
        with self.strategy.scope():
            trunk = self.model.image_tower.get_layer("image_trunk")
            trunk.trainable = settings.trunk == "trained"
            self.model.classifier.trainable = "image_logits" in losses or "text_logits" in losses
            network = self.model.over_features() if settings.trunk == "cached" else self.model
            sampled = self.config.model.sampled_negatives and self.model.classifier.trainable
            if sampled:
                # Its dropout is new: seeds that followed from the training before it would differ
                # in a run that was resumed.
                keras.utils.set_random_seed(order.seed)
                sampler = self._sampler(order.seed)
                network = SampledDualPath.placing(network, sampler.places)
            if settings.loss.mines_negatives:
                kind = MinedSampledDualPath if sampled else MinedDualPath
                network = kind.over(network, self._candidates(order.seed))
            schedule = stage_schedule(settings, order.steps_per_epoch)
            optimizer = stage_optimizer(settings, schedule, self.model)
            optimizer.build(network.trainable_variables)
            # XLA makes depthwise convolutions ten times slower on a CPU.
            network.compile(optimizer, losses, loss_weights=weights, jit_compile=False)
            if sampled:
                network.sample_from(self.model.classifier, sampler, schedule.rates())
        return network

    def _sampler(self, seed: int) -> Sampler:
        # A mined caption brings a class of its own.
        labels = self.settings.batch_size * (2 if self.settings.loss.mines_negatives else 1)
        model = self.config.model
        return Sampler(self.model.num_instances, model.sampled_negatives, labels, seed)

    def _candidates(self, seed: int) -> Candidates:
        captions = encode_captions(self.data, "train", self.encoder)
        return Candidates(captions, self.settings.loss.candidates, self.config.text.shift, seed)

    def _state(self, network: DualPath) -> list[keras.Variable]:
        """Returns the variables that a run resumes from, each once, the model's own first."""
        known = {id(v) for v in self.model.variables}
        rest = [v for v in network.variables if id(v) not in known]
        rows = network.store.variables if isinstance(network, SampledDualPath) else []
        return [*self.model.variables, *rest, *network.optimizer.variables, *rows]

    def _callbacks(self, network: DualPath, start: Progress) -> list[keras.callbacks.Callback]:
        checkpoints = Checkpoints(
            self.run,
            self.model.variables,
            lambda: [*self._state(network), *network.metrics_variables],
            start,
            self.config.checkpoint_minutes,
            network.settle if isinstance(network, SampledDualPath) else None,
        )
        validation = Validation(
            self._validator(network), self.settings.validate_every, self.settings.epochs
        )
        return stage_callbacks(self.run, self.number, validation, checkpoints)

    def _batches(self, order: Order, start: int, stop: int) -> Batches:
        text = self.config.text
        if self.settings.trunk == "cached":
            cache = self._cache("train", self.settings.views)
            batches = cache.training_batches(text, order, start, stop)
        else:
            batches = training_batches(
                self.data, self.encoder, self.config.image, text, order, start, stop
            )
        return batches.map(self._supervised)

    def _supervised(self, batch: dict[str, tf.Tensor]) -> tuple[dict, dict]:
        """Splits a batch into what the network takes and what its losses compare with."""
        ids = batch["instance"]
        inputs = {"image": batch["image"], "text": batch["text"]}
        pair = ids
        if self.settings.loss.lends_negatives:
            pair = tf.stack([ids, tf.range(tf.size(ids, tf.int64), dtype=tf.int64)], axis=1)
        targets = {"image_logits": ids, "text_logits": ids, "pair": pair}
        return inputs, {name: targets[name] for name in stage_losses(self.settings.loss)[0]}

    def _validator(self, network: DualPath) -> Callable[[], dict[str, Any]]:
        info = Manifest.load(self.data).splits["val"]
        if self.settings.trunk == "cached":
            images = self._cache("val", views=1).evaluation_images(_EVALUATION_BATCH)
        else:
            size = self.config.image.input_size
            images = evaluation_images(self.data, "val", size, _EVALUATION_BATCH)
        captions = evaluation_captions(self.data, "val", self.encoder, _EVALUATION_BATCH)

        def validate() -> dict[str, Any]:
            pictures = embed_images(network, images, info.pictures)
            texts = embed_texts(network, captions, info.captions)
            return retrieval_metrics(
                pictures.vectors, texts.vectors, pictures.instances, texts.instances
            )

        return validate

    def _cache(self, split: str, views: int) -> FeatureCache:
        return cached_features(
            self.model.image_tower.get_layer("image_trunk"),
            self.data,
            split,
            self.config.image,
            self.encoder,
            views,
            self.progress,
        )


@dataclass(frozen=True)
class _Part:
    """A call of `fit`: whole epochs, or what is left of a broken one."""

    first_epoch: int
    stop_epoch: int
    skipped: int
    first_step: int
    stop_step: int


def _parts(start: Progress, epochs: int, steps: int) -> list[_Part]:
    """Splits what is left of a stage, because `fit` knows epochs of one length only."""
    parts, epoch = [], start.epoch
    if start.step:
        stop = (epoch + 1) * steps
        parts.append(_Part(epoch, epoch + 1, start.step, epoch * steps + start.step, stop))
        epoch += 1
    if epoch < epochs:
        parts.append(_Part(epoch, epochs, 0, epoch * steps, epochs * steps))
    return parts
