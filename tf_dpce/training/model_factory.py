"""Gives the model of a configuration its first weights, and compiles what a stage fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.config import Config, LossConfig, StageConfig
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.evaluation.vocabulary_coverage import count_captions
from tf_dpce.logging import logger
from tf_dpce.losses.batch import Gather, single_replica
from tf_dpce.models.build import build_model, dtype_policy
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vector_tables import check_tables, read_tables
from tf_dpce.training.distributed import gather_rows, synchronize_replicas
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.objective import loss_weights, mark_trained, stage_losses
from tf_dpce.training.optimizers import StageSchedule, stage_optimizer, stage_schedule
from tf_dpce.training.partial_fc import ClassSampler, PartialFC

# Percent of the words in captions that a table of word vectors should have.
_FEW_WORDS = 50.0

# --- where its weights start ----------------------------------------------------------------------


def with_absolute_paths(config: Config) -> Config:
    """Returns a configuration whose files are found from any working folder."""
    weights, vectors, teacher = config.weights, config.vectors, config.teacher
    if weights not in ("imagenet", "none"):
        weights = str(Path(weights).resolve())
    if vectors is not None:
        vectors = tuple(str(Path(path).resolve()) for path in vectors)
    if teacher is not None:
        teacher = str(Path(teacher).resolve())
    return replace(config, weights=weights, vectors=vectors, teacher=teacher)


def starting_model(
    config: Config, words: Sequence[str], manifest: Manifest, data: Path
) -> DualPath:
    """Returns the model that training starts from; logs how many words have a vector.

    Args:
        config: configuration of the run.
        words: the vocabulary.
        manifest: manifest of the prepared data.
        data: folder of the prepared data.

    Raises:
        UserError: the weights or word vectors do not fit, or cannot be read.
    """
    keras.utils.set_random_seed(config.seed)
    model = build_model(config, len(words), manifest.splits["train"].instances)
    if config.vectors:
        paths = [Path(path) for path in config.vectors]
        check_tables(paths)
        known = load_vectors(model, paths, words, manifest.lowercase)
        for path, own in zip(paths, known, strict=True):
            _log_coverage(path, own, words, manifest, data)
    _start_averages(model)
    return model


def load_vectors(
    model: DualPath, paths: Sequence[Path], words: Sequence[str], lowercase: bool
) -> list[list[str]]:
    """Replaces random word vectors by those of one table, or of several side by side.

    A word that no table has stays random; see `WordVectors` for one that some tables lack.

    Args:
        model: model whose word vectors are replaced.
        paths: files of word vectors.
        words: the vocabulary.
        lowercase: whether the vocabulary is lower-cased; see `look_up_vectors`.

    Returns:
        The words that each table has.

    Raises:
        UserError: a file cannot be read or has no word of the vocabulary, or the vectors have
            another width than the model's.
    """
    embedding, vectors = model.word_embedding, read_tables(paths, words, lowercase)
    width = vectors.rows.shape[1]
    if width != embedding.output_dim:
        names, widths = ", ".join(map(str, paths)), " + ".join(map(str, vectors.widths))
        raise UserError(
            "vectors.width",
            f"{names}: vectors of {widths} numbers, but the model's words have "
            f"{embedding.output_dim}: set --text.word_dim {width}, or give other files",
            paths[0],
        )
    random = embedding.embeddings.numpy()
    if len(paths) > 1:
        # Their variance is 1 / width, that of the scaled tables 1.
        random *= math.sqrt(width)
    any_table = vectors.found.any(axis=0)[:, None]
    embedding.embeddings.assign(np.where(any_table, vectors.rows, random))
    return [list(compress(words, found)) for found in vectors.found]


def _log_coverage(
    path: Path, known: Sequence[str], words: Sequence[str], manifest: Manifest, data: Path
) -> None:
    """Logs which part of the vocabulary, and of the captions, starts from a table."""
    # A fifth of the words may be nine tenths of all captions, or the rare ones.
    tokenizer = CaptionTokenizer(known, 1, manifest.lowercase)
    share = count_captions(data, "train", tokenizer).coverage()["known_words"]
    logger.info(
        f"{len(known)} of {len(words)} words start from {path}: {share:.1f} % of all words in the "
        "training captions"
    )
    if share < _FEW_WORDS:
        logger.warning(
            f"{path} has vectors for only {share:.0f} % of the words in the training captions: "
            "give vectors of their language, or prepare with --lowercase if the file's words are "
            "lower-cased"
        )


def _start_averages(model: DualPath) -> None:
    """Gives the BatchNorm behind the word vectors the mean and the variance that those begin with.

    From Keras's variance of 1 its running average takes a hundred steps to come down to that of
    random vectors, 1 / 300. Until then encoders, which use it, embed all captions alike; a run on
    forty images could end so.
    """
    vectors = model.word_embedding.embeddings.numpy()
    for layer in model.text_tower.layers:
        if layer.name == "text_embedding_bn":
            layer.moving_mean.assign(vectors.mean(axis=0))
            layer.moving_variance.assign(vectors.var(axis=0))


# --- what a stage fits ----------------------------------------------------------------------------


def to_inputs_and_targets(loss: LossConfig, batch: dict[str, tf.Tensor]) -> tuple[dict, dict]:
    """Splits a batch into the inputs of `DualPath` and what the losses of a stage compare with."""
    ids = batch["instance"]
    targets = {"image_logits": ids, "text_logits": ids, "pair": ids}
    targets["distillation"] = batch.get("teacher")
    if loss.pairs_negatives:
        # Instance and role (see `RankingLoss`).
        roles = tf.range(tf.size(ids, tf.int64), dtype=tf.int64)
        targets["pair"] = tf.stack([ids, roles], axis=1)
    inputs = {"image": batch["image"], "text": batch["text"]}
    return inputs, {name: targets[name] for name in loss_weights(loss)}


def compile_stage(
    settings: StageConfig,
    model: DualPath,
    trainer: DualPath,
    schedule: StageSchedule | float,
    gather: Gather = single_replica,
    **options: Any,
) -> None:
    """Compiles what a stage trains with its losses and its optimizer.

    Args:
        settings: settings of the stage.
        model: the whole model, with its trained layers marked.
        trainer: the model that is fitted, which shares its layers.
        schedule: schedule of the learning rate.
        gather: brings the rows of the other replicas.
        options: further arguments of `compile`.
    """
    optimizer = stage_optimizer(settings, schedule, model)
    optimizer.build(trainer.trainable_variables)
    losses = stage_losses(settings.loss, gather)
    weights = loss_weights(settings.loss)
    trainer.compile(optimizer, losses, loss_weights=weights, **options)


def stage_trainer(
    settings: StageConfig,
    model: DualPath,
    steps_per_epoch: int,
    hard_negatives: HardNegatives | None = None,
    sampler: ClassSampler | None = None,
) -> DualPathTrainer:
    """Returns the compiled model that a stage fits.

    It is the whole model, or, over cached features, the model behind the backbone. Call it in the
    scope of the strategy.

    Args:
        settings: settings of the stage.
        model: the whole model, whose layers the trainer shares.
        steps_per_epoch: number of steps, for the schedule of the learning rate.
        hard_negatives: where mined captions come from, if the stage mines.
        sampler: draws classes, if the instance loss samples.
    """
    mark_trained(settings, model)
    with dtype_policy(model.classifier.dtype_policy):
        trained = model.over_features() if settings.backbone == "cached" else model
        partial_fc = PartialFC(model.classifier, sampler) if sampler else None
        trainer = DualPathTrainer(trained, hard_negatives, partial_fc)
    synchronize_replicas(trainer)
    schedule = stage_schedule(settings, steps_per_epoch)
    # XLA makes depthwise convolutions ten times slower on a CPU.
    compile_stage(settings, model, trainer, schedule, gather_rows, jit_compile=False)
    return trainer
