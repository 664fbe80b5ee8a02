"""What a stage minimises, and which layers it trains. Pure Keras."""

from __future__ import annotations

import keras

from tf_dpce.config import LossConfig, StageConfig
from tf_dpce.losses import ContrastiveLoss, DistillationLoss, InstanceLoss, PrefixLoss, RankingLoss
from tf_dpce.losses.batch import Gather, single_replica
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.image_tower import freeze_before


def loss_weights(loss: LossConfig) -> dict[str, float]:
    """Returns the weight of each loss of a stage, by output of `DualPath`; 0 leaves a loss out."""
    weights = {
        "image_logits": loss.image_instance,
        "text_logits": loss.text_instance,
        "pair": loss.pair,
        "distillation": loss.distillation,
    }
    return {name: weight for name, weight in weights.items() if weight}


def stage_losses(loss: LossConfig, gather: Gather = single_replica) -> dict[str, keras.losses.Loss]:
    """Returns the losses of a stage, by output of `DualPath`.

    Args:
        loss: weights and settings.
        gather: brings the rows of the other replicas.
    """
    pair = (
        ContrastiveLoss(loss.temperature, gather)
        if loss.pair_loss == "contrastive"
        else RankingLoss(loss.margin, "paired" if loss.pairs_negatives else "batch", gather)
    )
    if loss.prefixes:
        pair = PrefixLoss(pair, loss.prefixes)
    losses = {
        "image_logits": InstanceLoss(),
        "text_logits": InstanceLoss(),
        "pair": pair,
        "distillation": DistillationLoss(loss.temperature, loss.teacher_temperature, gather),
    }
    return {name: losses[name] for name in loss_weights(loss)}


def mark_trained(settings: StageConfig, model: DualPath) -> None:
    """Marks which layers of a model a stage trains.

    Raises:
        UserError: the backbone has no layer `finetune_from`.
    """
    backbone = model.image_backbone
    backbone.trainable = settings.backbone == "trained"
    if backbone.trainable and settings.finetune_from is not None:
        freeze_before(backbone, settings.finetune_from)
    model.classifier.trainable = bool(settings.loss.image_instance or settings.loss.text_instance)
