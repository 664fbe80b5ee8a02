"""Trains on N logical CPU devices: `python -m tests.unit.training.replicated N PART DATA OUT`.

The devices must be there before TensorFlow is first used, so this is a program of its own. It
leaves in OUT `steps.json`, what `gradients.compared` found for each kind of step of PART, and a
tiny run for each name in its `RUNS`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

BATCH = 8
_SGD = {"optimizer": "sgd", "schedule": "cosine", "learning_rate": 0.01, "batch_size": BATCH}
FIRST = {f"stage1__{key}": value for key, value in _SGD.items()} | {
    "stage1__loss__pair": 1.0,
    "stage1__loss__pair_loss": "contrastive",
    # Wide, lest a rectified vector be next to nothing, whose gradient is next to infinite. At four
    # times the rate a rounding error becomes another mined caption, and then all is another.
    "model__output_dim": 64,
    "stage2__learning_rate": 0.001,
    "stage2__batch_size": BATCH,
    "stage2__loss__negatives": "mined",
    "stage2__loss__candidates": 8,
    "model__tower_dropout": 0.3,
}
_ONE_STAGE = {**FIRST, "stage2__epochs": 0}
_ADAMW = {"stage1__optimizer": "adamw", "stage1__learning_rate": 0.001}
_HARDEST = {"stage1__loss__pair_loss": "ranking", "stage1__loss__negatives": "batch"}
# Turned copies, which need the contrastive loss alone and images.
TURNED = {
    "text__opposites": "[[left, right], [above, below]]",
    "stage1__backbone": "frozen",
    "stage1__loss__image_instance": 0.0,
    "stage1__loss__text_instance": 0.0,
    "stage2__epochs": 0,
}
# What every change must pass, what `make test-all` adds, and what is left to `make slow`.
CASES = {
    "sentinel": ("instance", "contrastive", "paired"),
    "rest": ("sampled", "distillation", "batch", "mined"),
    "slow": ("prefixes",),
}
RUNS: dict[str, dict[str, dict]] = {
    # In-batch softmax and both instance losses over cached features, by SGD.
    "sentinel": {"first": _ONE_STAGE},
    # Then mined negatives end to end.
    "rest": {"both": FIRST},
    "slow": {
        # The hardest negatives of the batch.
        "hardest": _ONE_STAGE | _HARDEST,
        "turned": FIRST | TURNED,
        "both_adamw": _ONE_STAGE | _ADAMW,
        "hardest_adamw": _ONE_STAGE | _HARDEST | _ADAMW,
    },
}


def main(replicas: int, part: str, data: Path, out: Path) -> int:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
    tf.config.set_logical_device_configuration(cpu, devices)
    from tests.unit.training import gradients
    from tests.unit.training.tiny import run_tiny

    steps = {name: gradients.compared(*gradients.CASES[name], replicas) for name in CASES[part]}
    (out / "steps.json").write_text(json.dumps(steps))
    return max(run_tiny(data, out / name, **options) for name, options in RUNS[part].items())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
