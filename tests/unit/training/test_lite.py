"""A run on EfficientNet-Lite from a file of weights, of both stages, to an export that verifies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines import export
from tests.unit.models.lite_reference import random_arrays
from tests.unit.training.tiny import run_tiny
from tf_dpce.training.run_folder import load_run

OPTIONS = {
    "image__backbone": "EfficientNetLite0",
    "stage1__epochs": 1,
    "stage2__epochs": 1,
    "stage2__decay_epochs": "[]",
    "stage2__finetune_from": "block7a_expand_conv",
    "stage2__learning_rate": 0.001,
}


@pytest.mark.full
def test_late_layers_are_trained_and_the_export_verifies(scenes: Path, tmp_path: Path):
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
