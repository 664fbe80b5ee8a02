"""The optimizers against plain NumPy, several steps long."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.unit.export.tiny import CONFIG
from tf_dpce.config import StageConfig
from tf_dpce.models.image_tower import image_backbone
from tf_dpce.training.model_factory import build_model
from tf_dpce.training.optimizers import (
    LayerwiseAdamW,
    LayerwiseSGD,
    _backbone_multipliers,
    stage_optimizer,
)
from tf_dpce.training.schedule import StageSchedule, stage_schedule

SHAPES = {"matrix": (3, 4), "vector": (5,), "slow": (2, 2), "frozen": (3, 3)}
SCALES = {"matrix": 1.0, "vector": 1.0, "slow": 0.01, "frozen": 0.0}
MULTIPLIERS = {"slow": 0.01, "frozen": 0.0}
STEPS, DECAY = 6, 0.1
RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]


def start(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.normal(size=shape) for name, shape in SHAPES.items()}


def gradients(seed: int) -> list[dict[str, np.ndarray]]:
    return [start(1000 + STEPS * seed + step) for step in range(STEPS)]


def apply(optimizer: keras.optimizers.Optimizer, seed: int) -> dict[str, np.ndarray]:
    variables = {n: keras.Variable(v, dtype="float32", name=n) for n, v in start(seed).items()}
    assert [v.path for v in variables.values()] == list(SHAPES)
    optimizer.build(list(variables.values()))
    for step in gradients(seed):
        values = [keras.ops.convert_to_tensor(g, "float32") for g in step.values()]
        optimizer.apply(values, list(variables.values()))
    return {name: variable.numpy() for name, variable in variables.items()}


def plain_sgd(seed: int) -> dict[str, np.ndarray]:
    """Section 5 of the recipe, the rate inside the velocity: v = 0.9v - lr g; w += 0.9v - lr g."""
    weights = start(seed)
    velocity = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for rate, step in zip(RATES, gradients(seed), strict=True):
        for name, w in weights.items():
            move = rate * SCALES[name] * (step[name] + DECAY * w)
            velocity[name] = 0.9 * velocity[name] - move
            weights[name] = w + 0.9 * velocity[name] - move
    return weights


def plain_adamw(seed: int) -> dict[str, np.ndarray]:
    """Decay beside the step, on matrices alone; both scaled by the multiplier."""
    weights = start(seed)
    first = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    second = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for t, (rate, step) in enumerate(zip(RATES, gradients(seed), strict=True), start=1):
        for name, w in weights.items():
            g, scaled = step[name], rate * SCALES[name]
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            corrected = scaled * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            decay = scaled * DECAY * w if w.ndim > 1 else 0
            weights[name] = w - decay - corrected * first[name] / (np.sqrt(second[name]) + 1e-7)
    return weights


@pytest.fixture
def schedule() -> StageSchedule:
    return StageSchedule(0.1, STEPS, decay_steps=(3,))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "plain"), [(LayerwiseSGD, plain_sgd), (LayerwiseAdamW, plain_adamw)]
)
def test_several_steps_equal_the_plain_reference(kind, plain, schedule, seed: int):
    found = apply(kind(schedule, MULTIPLIERS, DECAY), seed)
    for name, expected in plain(seed).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found["frozen"], start(seed)["frozen"], rtol=1e-6)


def test_sgd_without_extras_is_that_of_keras():
    expected = apply(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), 0)
    for name, value in apply(LayerwiseSGD(0.1, {}, 0.0), 0).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6)


def test_adamw_on_matrices_is_that_of_keras():
    expected = apply(keras.optimizers.AdamW(0.1, weight_decay=DECAY), 0)
    found = apply(LayerwiseAdamW(0.1, {}, DECAY), 0)
    for name in ("matrix", "slow"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize("kind", [LayerwiseSGD, LayerwiseAdamW])
def test_the_configuration_makes_the_same_optimizer_again(kind, schedule):
    optimizer = kind(schedule, MULTIPLIERS, DECAY)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is kind
    expected = apply(optimizer, 0)
    for name, value in apply(again, 0).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize(("name", "kind"), [("sgd", LayerwiseSGD), ("adamw", LayerwiseAdamW)])
def test_a_stage_gets_a_rate_for_each_part_of_the_model(name: str, kind):
    stage = StageConfig(
        epochs=1,
        optimizer=name,
        weight_decay=0.03,
        backbone_multiplier=0.3,
        word_multiplier=0.001,
        classifier_multiplier=0.01,
        classifier_bias_multiplier=0.02,
        gamma_multiplier=2.0,
    )
    model = build_model(CONFIG, vocabulary_size=9, num_instances=4)
    optimizer = stage_optimizer(stage, stage_schedule(stage, 5), model)
    assert type(optimizer) is kind and optimizer.decay == 0.03
    scales = {v.path: optimizer.multipliers.get(v.path, 1.0) for v in model.trainable_variables}
    assert scales["image_conv1/kernel"] == scales["image_conv4_bn/gamma"] == 0.3
    assert scales["text_embedding/embeddings"] == scales["text_embedding/bias"] == 0.001
    assert scales["instance_classifier/kernel"] == 0.01
    assert scales["instance_classifier/bias"] == 0.02
    assert scales["text1_embedding_bn/gamma"] == scales["image2_fc1_bn/gamma"] == 2.0
    rest = {path for path, scale in scales.items() if scale == 1.0}
    assert {"image1_fc1/kernel", "text2_fc/kernel", "text1_embedding_bn/beta"} <= rest
    assert not any("conv" in path or "classifier" in path for path in rest)


def test_the_backbone_has_a_rate_for_each_kind_of_variable():
    stage = StageConfig(
        backbone_multiplier=0.2,
        backbone_bias_multiplier=0.3,
        backbone_gamma_multiplier=0.01,
        backbone_first_multiplier=0.001,
        gamma_multiplier=2.0,
    )
    model = build_model(CONFIG, vocabulary_size=9, num_instances=4)
    scales = stage_optimizer(stage, stage_schedule(stage, 5), model).multipliers
    assert scales["image_conv1/kernel"] == 0.001 and scales["image_conv2/kernel"] == 0.2
    assert scales["image_conv1_bn/gamma"] == scales["image_conv4_bn/gamma"] == 0.01
    assert scales["image_conv1_bn/beta"] == 0.3
    assert scales["image1_fc1_bn/gamma"] == 2.0, "the head's are not the backbone's"


@pytest.mark.parametrize(("backbone", "first"), [("ResNet50", "conv1_conv"), ("VGG16", "block1_")])
def test_the_first_filters_are_those_that_see_the_pixels(backbone: str, first: str):
    backbone = image_backbone(backbone, None, 32)
    stage = StageConfig(
        backbone_multiplier=0.2, backbone_bias_multiplier=0.3, backbone_first_multiplier=0.1
    )
    scales = _backbone_multipliers(stage, backbone)
    (slow,) = (path for path, scale in scales.items() if scale == 0.1)
    assert slow.split("/")[-2].startswith(first) and slow.endswith("kernel")
    assert all(scale == 0.3 for path, scale in scales.items() if path.endswith(("bias", "beta")))
    assert len(scales) == len(backbone.trainable_variables)


def test_layers_that_stay_frozen_do_not_make_another_the_first():
    backbone = image_backbone("small", None, 32)
    backbone.get_layer("image_conv1").trainable = False
    scales = _backbone_multipliers(
        StageConfig(backbone_multiplier=0.2, backbone_first_multiplier=0.1), backbone
    )
    assert set(scales.values()) == {0.2} and "image_conv1/kernel" not in scales
