"""A run on EfficientNet-Lite from a file of weights, of both stages, to an export that verifies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines import export
from tests.unit.models.lite_reference import random_arrays
from tests.unit.training.kills import history
from tests.unit.training.tiny import run_tiny
from tf_dpce.training.run_folder import load_run

OPTIONS = {
    "image__backbone": "EfficientNetLite0",
    "stage1__epochs": 1,
    "stage2__epochs": 1,
    "stage2__decay_epochs": "[]",
    "stage2__finetune_from": "block7a_expand_conv",
    "stage2__learning_rate": 0.001,
    "model__dropout": 0.0,
    "text__word_dropout": 0.0,
}
REPLICAS = """
import sys, tensorflow as tf
from pathlib import Path
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.unit.training.test_lite import OPTIONS, run_tiny
sys.exit(run_tiny(Path("DATA"), Path("RUN"), **OPTIONS, weights="WEIGHTS"))
"""

pytestmark = [pytest.mark.full, pytest.mark.process]


def test_it_trains_late_layers_on_one_replica_as_on_two_and_its_export_verifies(
    scenes: Path, tmp_path: Path, run_program
):
    weights, run, arrays = tmp_path / "lite.npz", tmp_path / "run", random_arrays(0)
    np.savez(weights, **arrays)
    assert run_tiny(scenes, run, **OPTIONS, weights=str(weights)) == 0
    trained = load_run(run).model.image_backbone
    layers = {layer.name: layer for layer in trained.get_layer("image_network").layer.layers}
    for name, moved in (("block6d_dwconv", False), ("block7a_dwconv", True)):
        same = np.array_equal(layers[name].get_weights()[0], arrays[f"{name}/kernel"])
        assert same is not moved
    # What ImageNet's pixels were on average is left as it is, also where layers are trained.
    mean = layers["block7a_dwconv_bn"].moving_mean
    np.testing.assert_array_equal(mean, arrays["block7a_dwconv_bn/mean"])

    assert export.main(["--run", str(run), "--to", str(tmp_path / "models" / "lite")]) == 0
    assert (tmp_path / "models" / "lite" / "1" / "saved_model.pb").exists()

    program = REPLICAS.replace("DATA", str(scenes)).replace("WEIGHTS", str(weights))
    run_program(program.replace("RUN", str(tmp_path / "two")))
    one, two = history(run), history(tmp_path / "two")
    assert [row["stage"] for row in one] == ["1", "2"]
    # Random weights tell images apart by little, of which BatchNorm makes more and of rounding too.
    for each, other, tolerance in zip(one, two, (1e-3, 2e-2), strict=True):
        assert float(each["loss"]) == pytest.approx(float(other["loss"]), rel=tolerance)
