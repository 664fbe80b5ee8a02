"""What a stage fits: the network, compiled, and a batch as it takes it."""

from __future__ import annotations

import tensorflow as tf

from tf_dpce.config import LossConfig, StageConfig
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.assembly import compile_stage, mark_trained, stage_targets
from tf_dpce.training.hard_negative_mining import Candidates, MinedDualPath
from tf_dpce.training.partial_fc import MinedSampledDualPath, SampledDualPath, Sampler
from tf_dpce.training.replicas import gather_rows, share_over_replicas
from tf_dpce.training.schedule import stage_schedule


def stage_network(
    settings: StageConfig,
    model: DualPath,
    steps_per_epoch: int,
    candidates: Candidates | None = None,
    sampler: Sampler | None = None,
) -> DualPath:
    """Returns the network that is trained, compiled: the model, or all of it behind the backbone.

    Args:
        settings: of the stage.
        model: the whole model, whose weights the network shares.
        steps_per_epoch: for the learning rate's schedule.
        candidates: captions to mine from, where the stage does.
        sampler: of classes, where the instance loss takes some of them.
    """
    mark_trained(settings, model)
    network = model.over_features() if settings.backbone == "cached" else model
    if sampler is not None:
        network = SampledDualPath.placing(network, sampler.places)
    if candidates is not None:
        kind = MinedDualPath if sampler is None else MinedSampledDualPath
        network = kind.over(network, candidates)
    share_over_replicas(network)
    schedule = stage_schedule(settings, steps_per_epoch)
    # XLA makes depthwise convolutions ten times slower on a CPU.
    compile_stage(settings, model, network, schedule, gather_rows, jit_compile=False)
    if sampler is not None:
        network.sample_from(model.classifier, sampler, schedule.rates())
    return network


def supervised(loss: LossConfig, batch: dict[str, tf.Tensor]) -> tuple[dict, dict]:
    """Splits a batch into what the network takes and what its losses compare with."""
    ids = batch["instance"]
    pairs = tf.stack([ids, tf.range(tf.size(ids, tf.int64), dtype=tf.int64)], axis=1)
    return {"image": batch["image"], "text": batch["text"]}, stage_targets(loss, ids, pairs)
