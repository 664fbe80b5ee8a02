"""What a stage fits: the network, compiled, and a batch as it takes it."""

from __future__ import annotations

import tensorflow as tf

from tf_dpce.config import LossConfig, StageConfig
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.assembly import compile_stage, mark_trained, stage_targets
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.partial_fc import ClassSampler, PartialFC
from tf_dpce.training.replicas import gather_rows, share_over_replicas
from tf_dpce.training.schedule import stage_schedule


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
    trained = model.over_features() if settings.backbone == "cached" else model
    partial_fc = PartialFC(model.classifier, sampler) if sampler else None
    trainer = DualPathTrainer(trained, hard_negatives, partial_fc)
    share_over_replicas(trainer)
    schedule = stage_schedule(settings, steps_per_epoch)
    # XLA makes depthwise convolutions ten times slower on a CPU.
    compile_stage(settings, model, trainer, schedule, gather_rows, jit_compile=False)
    return trainer


def supervised(loss: LossConfig, batch: dict[str, tf.Tensor]) -> tuple[dict, dict]:
    """Splits a batch into what the network takes and what its losses compare with."""
    ids = batch["instance"]
    pairs = tf.stack([ids, tf.range(tf.size(ids, tf.int64), dtype=tf.int64)], axis=1)
    return {"image": batch["image"], "text": batch["text"]}, stage_targets(loss, ids, pairs)
