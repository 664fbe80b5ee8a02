"""Loss and gradients of a step on N logical CPU devices and on one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import keras
import numpy as np
import tensorflow as tf

from tf_dpce.config import LossConfig, StageConfig, from_dict
from tf_dpce.data.caption_table import CaptionTable
from tf_dpce.models.build import build_model
from tf_dpce.training.distributed import mirrored_strategy
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.hard_negative_mining import HardNegatives
from tf_dpce.training.model_factory import stage_trainer, to_inputs_and_targets
from tf_dpce.training.optimizers import LayerwiseSGD
from tf_dpce.training.partial_fc import ClassSampler

WORDS, PLACES, INSTANCES, BATCH, SIZE = 30, 8, 40, 16, 32
# Dropout wherever there is any; wide, lest a rectified vector be next to nothing, whose gradient
# is next to infinite.
CONFIG = from_dict(
    {
        "weights": "none",
        "image": {"backbone": "small", "input_size": SIZE, "head_dim": 16},
        "text": {
            "max_length": PLACES,
            "word_dim": 8,
            "blocks": [1],
            "widths": [16],
            "word_dropout": 0.1,
        },
        "model": {"output_dim": 64, "dropout": 0.5, "tower_dropout": 0.3},
    }
)
_STEP = StageConfig(backbone="cached", learning_rate=1.0, weight_decay=0.0)
_INSTANCE = LossConfig()
_PAIR = LossConfig(image_instance=0.0, text_instance=0.0, pair=1.0)
_RANKING = LossConfig(pair=1.0, negatives="paired")
CASES: dict[str, tuple[StageConfig, int]] = {
    "instance": (replace(_STEP, loss=_INSTANCE, optimizer="adamw", weight_decay=0.01), 0),
    "sampled": (replace(_STEP, loss=_INSTANCE), 9),
    "contrastive": (replace(_STEP, loss=replace(_PAIR, pair_loss="contrastive")), 0),
    "prefixes": (
        replace(_STEP, loss=replace(_PAIR, pair_loss="contrastive", prefixes=(32, 16))),
        0,
    ),
    "distillation": (replace(_STEP, loss=replace(_PAIR, pair=0.0, distillation=1.0)), 0),
    "batch": (replace(_STEP, loss=replace(_PAIR, negatives="batch")), 0),
    # End to end, as stage 2 is.
    "paired": (replace(_STEP, loss=_RANKING, backbone="trained"), 0),
    "mined": (replace(_STEP, loss=replace(_RANKING, negatives="mined", candidates=12)), 0),
}


def compared(settings: StageConfig, negatives: int, replicas: int) -> dict[str, object]:
    """Takes the same step on one device and on several.

    Returns `losses` on both; and `gradients`, for each trained variable the largest difference
    and the largest value on one device; and `ways`, the same of how far the variable went.
    """
    one, several = (step(settings, negatives, count) for count in (1, replicas))
    return {
        "losses": [one.loss, several.loss],
        "gradients": _differences(one.gradients, several.gradients),
        "ways": _differences(one.ways, several.ways),
    }


def _differences(
    one: Mapping[str, np.ndarray], several: Mapping[str, np.ndarray]
) -> dict[str, list[float]]:
    return {
        name: [float(abs(several[name] - value).max()), float(abs(value).max())]
        for name, value in one.items()
    }


@dataclass(frozen=True)
class Step:
    """What the first step did: its loss and, by variable, gradients and how far weights went."""

    loss: float
    gradients: dict[str, np.ndarray]
    ways: dict[str, np.ndarray]


def step(settings: StageConfig, negatives: int, replicas: int) -> Step:
    """Takes the first step, and reads its gradients from the slots of the optimizer."""
    strategy = one_replica() if replicas == 1 else mirrored_strategy()
    assert strategy.num_replicas_in_sync == replicas
    keras.utils.set_random_seed(3)
    with strategy.scope():
        network = _network(settings, negatives)
    # Adam divides by the size of a gradient, down to that of a rounding error: not here.
    network.optimizer.epsilon = 1e-3
    before = {v.path: v.numpy() for v in network.trainable_variables}
    batches = tf.data.Dataset.from_tensors(to_inputs_and_targets(settings.loss, _batch(network)))
    loss = network.fit(batches, shuffle=False, verbose=0).history["loss"][0]
    ways = {v.path: v.numpy() - before[v.path] for v in network.trainable_variables}
    return Step(loss, _gradients(network), ways)


def _gradients(network: DualPathTrainer) -> dict[str, np.ndarray]:
    optimizer = network.optimizer
    # At rate 1 and without decay, sgd's momentum is the gradient with its sign turned; Adam's is
    # a tenth of it.
    scale = -1.0 if isinstance(optimizer, LayerwiseSGD) else 1 / (1 - optimizer.beta_1)
    slots = {v.path: optimizer.slots(v)[0] for v in network.trainable_variables}
    if network.partial_fc:
        # Of all classes, not of the rows that they took for this step.
        slots |= {v.path: v for v in network.partial_fc.slots}
        for slot in network.partial_fc.slots:
            first, *others = (copy.numpy() for copy in slot.value.values)
            assert all(np.array_equal(first, other) for other in others)
    return {path: scale * slot.numpy() for path, slot in slots.items()}


@cache
def one_replica() -> tf.distribute.MirroredStrategy:
    """The strategy of one replica, in a process that has several devices."""
    return tf.distribute.MirroredStrategy(["CPU:0"])


def _network(settings: StageConfig, negatives: int) -> DualPathTrainer:
    config = replace(CONFIG, model=replace(CONFIG.model, sampled_negatives=negatives))
    model = build_model(config, WORDS, INSTANCES)
    mined, sampler = None, None
    if settings.loss.mines_negatives:
        mined = HardNegatives(_captions(), settings.loss.candidates, shift=True, seed=5)
    if negatives:
        sampler = ClassSampler(INSTANCES, negatives, BATCH, seed=5)
    return stage_trainer(settings, model, 1, mined, sampler)


def _captions() -> CaptionTable:
    """Two captions of each instance."""
    ids = np.random.default_rng(2).integers(1, WORDS + 1, (2 * INSTANCES, PLACES))
    return CaptionTable(ids.astype(np.int32), 2 * np.arange(INSTANCES + 1), np.arange(INSTANCES))


def _batch(network: DualPathTrainer) -> Mapping[str, tf.Tensor]:
    draw = np.random.default_rng(4)
    shape = (BATCH, *network.image_tower.input_shape[1:])
    images = draw.uniform(0, 255, shape) if len(shape) == 4 else draw.normal(size=shape)
    ids = draw.permutation(INSTANCES)[:BATCH]
    # Two pairs of one instance, on different replicas: not negatives of one another.
    ids[BATCH - 3] = ids[0]
    captions = draw.integers(1, WORDS + 1, (BATCH, PLACES))
    taught = draw.normal(size=(BATCH, 2, 7))
    return {
        "image": tf.constant(images, tf.float32),
        "text": tf.constant(captions, tf.int32),
        "instance": tf.constant(ids, tf.int64),
        "teacher": tf.linalg.l2_normalize(tf.constant(taught, tf.float32), axis=2),
    }
