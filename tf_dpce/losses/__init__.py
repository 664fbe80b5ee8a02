"""Losses, each a pure function and a `keras.losses.Loss` that returns `(B,)`. Pure Keras."""

from __future__ import annotations

from tf_dpce.losses.contrastive import ContrastiveLoss, contrastive_loss
from tf_dpce.losses.distillation import DistillationLoss, distillation_loss
from tf_dpce.losses.instance import InstanceLoss, instance_loss
from tf_dpce.losses.prefix import PrefixLoss
from tf_dpce.losses.ranking import RankingLoss, batch_ranking_loss, ranking_loss

__all__ = [
    "ContrastiveLoss",
    "DistillationLoss",
    "InstanceLoss",
    "PrefixLoss",
    "RankingLoss",
    "batch_ranking_loss",
    "contrastive_loss",
    "distillation_loss",
    "instance_loss",
    "ranking_loss",
]
