"""bfloat16: the layers' arithmetic alone, and a loss that stays where float32 has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.unit.export.tiny import CONFIG
from tests.unit.training.kills import arrays, history, newest
from tests.unit.training.replicated import RUNS
from tests.unit.training.tiny import run_tiny
from tf_dpce.config import Config, from_dict, to_dict
from tf_dpce.data.feature_cache import features_path
from tf_dpce.errors import UserError
from tf_dpce.losses.instance import InstanceLoss
from tf_dpce.models.build import build_model
from tf_dpce.training.dual_path_trainer import DualPathTrainer
from tf_dpce.training.run_folder import load_run

HALF = from_dict({**to_dict(CONFIG), "precision": "bfloat16"})


def built(config: Config) -> keras.Model:
    return build_model(config, vocabulary_size=20, num_instances=6)


@pytest.mark.full
def test_a_run_stays_close_and_its_weights_float32(
    scenes: Path, tmp_path: Path, one_replica: Callable[[str], Path]
):
    runs = [one_replica("both"), tmp_path / "run"]
    assert run_tiny(scenes, runs[1], precision="bfloat16", **RUNS["rest"]["both"]) == 0
    whole, half = (np.array([float(row["loss"]) for row in history(run)]) for run in runs)
    assert len(half) == 4 and np.isfinite(half).all()
    # bfloat16 has 8 bits: steps of 0.4 percent, of which a loss averages many.
    np.testing.assert_allclose(half[:2], whole[:2], rtol=0.005)
    # Captions that are nearly as hard as one another are mined in its place.
    np.testing.assert_allclose(half[2:], whole[2:], rtol=0.1)
    assert not np.array_equal(half, whole)
    for stage in (1, 2):
        kinds = [
            {k: (v.dtype, v.shape) for k, v in arrays(newest(run, stage)).items()} for run in runs
        ]
        for found in kinds:
            del found["progress"]
        assert kinds[0] == kinds[1] and len(kinds[0]) > 20
    # It is loaded as float32.
    model = load_run(runs[1]).model
    assert {layer.compute_dtype for layer in model.text_tower.layers} == {"float32"}


def test_layers_compute_in_it_and_unit_vectors_do_not():
    model = built(HALF)
    assert model.image_tower.compute_dtype == model.classifier.compute_dtype == "bfloat16"
    assert {v.dtype for v in model.weights} == {"float32"}
    unit = ("pair", "image_embedding", "text_embedding")
    assert [model.output[name].dtype for name in unit] == ["float32"] * 3


def test_a_neighbour_of_the_right_class_is_wrong():
    trainer = DualPathTrainer(build_model(HALF, vocabulary_size=20, num_instances=300))
    trainer.compile("sgd", {"image_logits": InstanceLoss()})
    # Of these two classes bfloat16 would make one number.
    classes, logits = np.array([256, 257]), keras.ops.one_hot([256, 256], 300, dtype="bfloat16")
    trainer.compute_metrics({}, {"image_logits": classes}, {"image_logits": logits})
    assert float(trainer.accuracies["image_logits"].result()) == 0.5
    # Of classes that are all alike the first counts as the best: of four rows still one is right.
    trainer.compute_metrics({}, {"image_logits": classes}, {"image_logits": 0 * logits})
    assert float(trainer.accuracies["image_logits"].result()) == 0.25


def test_each_precision_has_a_feature_cache_of_its_own(scenes: Path):
    backbones = [built(config).image_tower.get_layer("image_backbone") for config in (CONFIG, HALF)]
    for backbone in backbones:
        backbone.set_weights([np.ones_like(w) for w in backbone.get_weights()])
    keys = [
        features_path(backbone, scenes, "train", CONFIG.image, views=2) for backbone in backbones
    ]
    assert keys[0] != keys[1]


def test_the_policy_of_the_process_is_left_as_it_was():
    with pytest.raises(UserError):
        built(replace(HALF, image=replace(HALF.image, backbone="none")))
    assert keras.config.dtype_policy().name == "float32"
