"""A configuration -> the model, and what a stage makes of it: Keras alone, no TensorFlow.

Where several replicas train, the one that trains on them passes in how rows are gathered.
"""

from __future__ import annotations

from typing import Any

import keras

from tf_dpce.config import Config, LossConfig, StageConfig
from tf_dpce.losses import ContrastiveLoss, InstanceLoss, MemberLoss, RankingLoss
from tf_dpce.losses.batch import Gather, alone
from tf_dpce.models import bag_of_words_tower, image_tower, recurrent_tower, text_tower
from tf_dpce.models.dual_path import DualPath, RowClassifier
from tf_dpce.models.image_tower import freeze_before
from tf_dpce.training.optimizers import stage_optimizer
from tf_dpce.training.schedule import StageSchedule


def build_model(config: Config, vocabulary_size: int, num_instances: int) -> DualPath:
    """Builds the model of a configuration, with the backbone's weights but random word vectors.

    Args:
        config: of the run.
        vocabulary_size: V, the number of words.
        num_instances: C, the number of training classes.

    Raises:
        UserError: an unknown backbone, or weights that do not fit it.
    """
    settings, classifier = config.model, None
    if settings.sampled_negatives:
        classifier = RowClassifier(num_instances, settings.shared_bias, name="instance_classifier")
    return DualPath(
        image_tower(
            config.image.backbone,
            None if config.weights == "none" else config.weights,
            config.image.input_size,
            settings.output_dim,
            head_dim=config.image.head_dim,
            dropout=settings.tower_dropout,
            members=settings.members,
        ),
        text_tower_of(config, vocabulary_size),
        num_instances,
        dropout=settings.dropout,
        shared_bias=settings.shared_bias,
        rectify=settings.rectify,
        classifier=classifier,
        members=settings.members,
    )


def text_tower_of(config: Config, vocabulary_size: int) -> keras.Model:
    """Builds the text tower of a configuration, with random word vectors."""
    text, width = config.text, config.model.output_dim
    common = (vocabulary_size, text.max_length, text.embedding_dim)
    dropouts = {"word_dropout": text.word_dropout, "dropout": config.model.tower_dropout}
    if text.tower == "convolutional":
        members = config.model.members
        return text_tower(
            *(*common, text.blocks, width), widths=text.widths, **dropouts, members=members
        )
    tower = recurrent_tower if text.tower == "recurrent" else bag_of_words_tower
    return tower(*common, text.widths, width, **dropouts)


def stage_losses(
    loss: LossConfig, gather: Gather = alone, members: int = 1
) -> tuple[dict[str, keras.losses.Loss], dict[str, float]]:
    """Returns the losses of `DualPath`'s outputs and their weights, those of weight 0 left out.

    Args:
        loss: weights and settings.
        gather: brings the rows of the other replicas.
        members: M, of the vectors that the pair loss compares. Their mean is reported, and weighs
            M times as much: each meets the loss by its whole weight.
    """
    pair = (
        ContrastiveLoss(loss.temperature, gather)
        if loss.pair_loss == "contrastive"
        else RankingLoss(loss.margin, "given" if loss.lends_negatives else "batch", gather)
    )
    pair = pair if members == 1 else MemberLoss(pair, members)
    table = {
        "image_logits": (InstanceLoss(), loss.image_instance),
        "text_logits": (InstanceLoss(), loss.text_instance),
        "pair": (pair, loss.pair * members),
    }
    used = {name: entry for name, entry in table.items() if entry[1]}
    return {k: v[0] for k, v in used.items()}, {k: v[1] for k, v in used.items()}


def stage_targets(loss: LossConfig, ids: Any, pairs: Any) -> dict[str, Any]:
    """Returns what the losses of a stage compare a batch with.

    Args:
        loss: weights and settings.
        ids: integers `[B]`, the instances of the rows.
        pairs: integers `[B, 2]`, instance and role (see `RankingLoss`), where `loss` lends
            negatives; not looked at elsewhere.
    """
    table = {"image_logits": ids, "text_logits": ids, "pair": ids}
    if loss.lends_negatives:
        table["pair"] = pairs
    return {name: table[name] for name in stage_losses(loss)[0]}


def mark_trained(settings: StageConfig, model: DualPath) -> None:
    """Marks which layers of a model a stage trains.

    Raises:
        UserError: the backbone has no layer `backbone_from`.
    """
    backbone = model.image_tower.get_layer("image_backbone")
    backbone.trainable = settings.backbone == "trained"
    if backbone.trainable and settings.backbone_from is not None:
        freeze_before(backbone, settings.backbone_from)
    losses, _ = stage_losses(settings.loss)
    model.classifier.trainable = "image_logits" in losses or "text_logits" in losses


def compile_stage(
    settings: StageConfig,
    model: DualPath,
    network: DualPath,
    schedule: StageSchedule,
    gather: Gather = alone,
    **options: Any,
) -> None:
    """Compiles what a stage trains with its losses and its optimizer.

    Args:
        settings: of the stage.
        model: the whole model, whose trained layers are marked.
        network: what is trained: the model, or a part that shares its weights.
        schedule: of the learning rate.
        gather: brings the rows of the other replicas.
        options: further ones of `compile`.
    """
    losses, weights = stage_losses(settings.loss, gather, model.members)
    optimizer = stage_optimizer(settings, schedule, model)
    optimizer.build(network.trainable_variables)
    network.compile(optimizer, losses, loss_weights=weights, **options)
