"""Trains on N logical CPU devices: `python -m tests.unit.training.replicated N DATA OUT`.

The devices must be there before TensorFlow is first used, so this is a program of its own. It
leaves in OUT `steps.json`, what `gradients.compared` found for each kind of step, and a tiny run
for each name of `RUNS`. Differences of anything else end it with an error.
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
RUNS = {
    # In-batch softmax and both instance losses over cached features, then mined negatives end to
    # end, by SGD.
    "both": FIRST,
    # The hardest negatives of the batch, by AdamW.
    "hardest_adamw": {
        **FIRST,
        "stage1__loss__pair_loss": "ranking",
        "stage1__loss__negatives": "batch",
        "stage1__optimizer": "adamw",
        "stage1__learning_rate": 0.001,
        "stage2__epochs": 0,
    },
}


def main(replicas: int, data: Path, out: Path) -> int:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
    tf.config.set_logical_device_configuration(cpu, devices)
    from tests.unit.training.gradients import CASES, compared
    from tests.unit.training.tiny import run_tiny

    steps = {name: compared(*case, replicas) for name, case in CASES.items()}
    (out / "steps.json").write_text(json.dumps(steps))
    check_two_rows_of_one_instance()
    check_sampled_rows()
    return max(run_tiny(data, out / name, **options) for name, options in RUNS.items())


def check_two_rows_of_one_instance() -> None:
    """Checks that rows of one instance on two replicas are not negatives of one another."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tests.unit.training.gradients import one_replica
    from tests.unit.training.test_partial_fc import CLASSES, towers
    from tf_dpce.losses import ContrastiveLoss, RankingLoss
    from tf_dpce.models.dual_path import DualPath
    from tf_dpce.training.distributed import gather_rows, mirrored_strategy

    draw = np.random.default_rng(4)
    inputs = {
        "image": draw.normal(size=(4, 5)).astype(np.float32),
        "text": draw.integers(0, 30, (4, 3)).astype(np.int32),
    }
    # The third row is near the first, so that it would be the hardest negative.
    inputs["image"][2] = inputs["image"][0] + 0.5 * inputs["image"][2]

    def trained(loss: type, ids: list[int], strategy: tf.distribute.Strategy) -> np.ndarray:
        with strategy.scope():
            network = DualPath(*towers(), CLASSES, dropout=0.0)
            network.classifier.trainable = False
            optimizer, losses = keras.optimizers.SGD(0.1), {"pair": loss(gather=gather_rows)}
            network.compile(optimizer, losses, jit_compile=False)
        # Of two replicas the first takes the first two rows, of four each takes one.
        batches = tf.data.Dataset.from_tensors((inputs, {"pair": np.array(ids)}))
        network.fit(batches.repeat(3), shuffle=False, verbose=0)
        return np.concatenate([w.numpy().ravel() for w in network.trainable_weights])

    for loss in (RankingLoss, ContrastiveLoss):
        same = trained(loss, [3, 5, 3, 7], one_replica())
        found = trained(loss, [3, 5, 3, 7], mirrored_strategy())
        np.testing.assert_allclose(found, same, rtol=0, atol=1e-5)
        others = trained(loss, [3, 5, 4, 7], one_replica())
        assert np.abs(same - others).max() > 1e-2, "the mask makes a difference"


def check_sampled_rows() -> None:
    """Checks that ten steps of Partial FC leave the rows and slots of one replica on each."""
    import numpy as np
    import tensorflow as tf

    from tests.unit.training.gradients import one_replica
    from tests.unit.training.test_partial_fc import OPTIMIZERS, batches, sampled
    from tf_dpce.training.distributed import mirrored_strategy

    def trained(kind: type, strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
        with strategy.scope():
            network, classifier = sampled(kind, negatives=7)
        network.fit(batches(), shuffle=False, verbose=0)
        state = [classifier.rows, classifier.bias, *network.partial_fc.slots]
        for first, *others in (v.value.values for v in state):
            assert len(others) == strategy.num_replicas_in_sync - 1
            for other in others:
                np.testing.assert_array_equal(first.numpy(), other.numpy())
        return {v.path: v.numpy() for v in [*network.weights, *state]}

    for kind in OPTIMIZERS:
        expected, found = trained(kind, one_replica()), trained(kind, mirrored_strategy())
        assert found.keys() == expected.keys()
        for path, value in expected.items():
            # No row of these steps is unused.
            assert value.any() or path.endswith("/mask"), path
            atol = 1e-5 * np.abs(value).max()
            np.testing.assert_allclose(found[path], value, rtol=0, atol=atol, err_msg=path)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
