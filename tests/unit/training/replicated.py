"""Trains tiny runs on N logical CPU devices.

`python -m tests.unit.training.replicated N DATA OUT RUN`.

Of "both", in-batch softmax with both instance losses over cached features is the first stage, and
mined negatives end to end the second; "hardest" takes the hardest negatives of the batch,
for each of two members. Both first stages once more by AdamW, of one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
_HARDEST = {**FIRST, "stage1__loss__pair_loss": "ranking", "stage1__loss__negatives": "batch"}
_ADAMW = {"stage1__optimizer": "adamw", "stage1__learning_rate": 0.001, "stage2__epochs": 0}
_RUNS = {
    "both": FIRST,
    "hardest": {**_HARDEST, "stage2__epochs": 0, "model__members": 2},
    "both_adamw": {**FIRST, **_ADAMW},
    "hardest_adamw": {**_HARDEST, **_ADAMW},
}


def main(replicas: int, data: Path, out: Path, names: Sequence[str]) -> int:
    import tensorflow as tf

    from tests.unit.training.tiny import run_tiny

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    return max(run_tiny(data, out / name, **_RUNS[name]) for name in names)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
