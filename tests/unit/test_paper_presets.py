"""The presets of the paper train every variable as they did when the golden file was made.

`tests/golden/paper_presets.json` holds, for each preset and stage, the learning rate and the weight
decay of every trained variable of the real model, and what one training step on fixed weights and
inputs does to a small model with layers of the same kinds and names.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tf_dpce.config import Config, from_dict, preset_values
from tf_dpce.models.build import build_model
from tf_dpce.models.dual_path import DualPath
from tf_dpce.training.model_factory import compile_stage, to_inputs_and_targets
from tf_dpce.training.objective import mark_trained
from tf_dpce.training.optimizers import stage_optimizer, stage_schedule

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "paper_presets.json"
PRESETS = (
    *("flickr30k", "flickr30k_vgg19", "flickr30k_resnet152"),
    *("mscoco", "mscoco_vgg19", "mscoco_resnet152"),
    *("cuhk_pedes", "cuhk_pedes_vgg16", "flickr8k_paper"),
)
# A backbone of each kind makes a change safe.
SENTINELS = ("flickr30k", "cuhk_pedes_vgg16", "flickr8k_paper")
each_preset = pytest.mark.parametrize(
    "preset", [pytest.param(p, marks=() if p in SENTINELS else pytest.mark.full) for p in PRESETS]
)
BACKBONES = ("ResNet50", "ResNet152", "VGG16", "VGG19", "MobileNetV2")
WORDS, INSTANCES, BATCH, SIZE = 20, 6, 4, 32
Table = dict[str, list[float]]


# --- a preset's model -----------------------------------------------------------------------------


def narrow(name: str) -> Config:
    """The preset with all of its layers, but few units in those that are not the backbone's."""
    config = from_dict({**preset_values(name), "weights": "none"})
    return replace(
        config,
        image=replace(config.image, input_size=SIZE, head_dim=12),
        text=replace(config.text, widths=(8, 8, 8, 16)),
        model=replace(config.model, output_dim=12),
    )


def named_variables(layer: keras.Operation) -> Iterator[tuple[str, keras.Variable]]:
    """Yields all variables as `LAYER/VARIABLE`; no two layers of a model have the same name."""
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            yield from named_variables(inner)
    elif isinstance(layer, layers.Wrapper):
        yield from named_variables(layer.layer)
    elif isinstance(layer, layers.Layer):
        for variable in layer.variables:
            yield f"{layer.name}/{variable.name}", variable


# --- rates and decays of the real model -----------------------------------------------------------


def rates_and_decays(config: Config, model: DualPath, number: int) -> Table:
    """Returns learning rate (after the warm-up) and weight decay of each trained variable."""
    stage = config.stage(number)
    mark_trained(stage, model)
    optimizer = stage_optimizer(stage, stage_schedule(stage, steps_per_epoch=10), model)
    trained, table = {id(v) for v in model.trainable_variables}, {}
    for name, variable in named_variables(model):
        if id(variable) in trained:
            # AdamW decays matrices and filters alone.
            decays = stage.optimizer == "sgd" or len(variable.shape) > 1
            rate = stage.learning_rate * optimizer.multipliers.get(variable.path, 1.0)
            assert name not in table
            table[name] = [rate, optimizer.decay if decays else 0.0]
    assert len(table) == len(trained)
    return table


@cache
def model_of(backbone: str, classifier_bias: str) -> DualPath:
    """What gives two presets different variables; dropout and the captions' length do not."""
    for preset in PRESETS:
        config = narrow(preset)
        if (config.image.backbone, config.model.classifier_bias) == (backbone, classifier_bias):
            return build_model(config, WORDS, INSTANCES)
    raise KeyError(backbone)


# --- one training step of a small model -----------------------------------------------------------


def small_resnet(include_top: bool, weights: None, input_shape: tuple, pooling: str):
    pixels = keras.Input(input_shape)
    x = layers.Conv2D(4, 7, 2, name="conv1_conv")(pixels)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1.001e-5, name="conv1_bn")(x))
    y = layers.Conv2D(4, 3, padding="same", name="conv2_block1_1_conv")(x)
    y = layers.BatchNormalization(epsilon=1.001e-5, name="conv2_block1_1_bn")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(pixels, layers.GlobalAveragePooling2D()(x))


def small_vgg(weights: None, input_shape: tuple):
    pixels = keras.Input(input_shape)
    x = layers.Conv2D(4, 3, 4, activation="relu", name="block1_conv1")(pixels)
    x = layers.Conv2D(4, 3, 2, activation="relu", name="block1_conv2")(x)
    x = layers.Dense(10, activation="relu", name="fc1")(layers.Flatten(name="flatten")(x))
    return keras.Model(pixels, layers.Dense(10, activation="relu", name="fc2")(x))


def small_mobilenet(include_top: bool, weights: None, input_shape: tuple, pooling: str):
    pixels = keras.Input(input_shape)
    x = layers.Conv2D(4, 3, 2, use_bias=False, name="Conv1")(pixels)
    x = layers.ReLU(6)(layers.BatchNormalization(name="bn_Conv1")(x))
    x = layers.DepthwiseConv2D(3, use_bias=False, name="expanded_conv_depthwise")(x)
    x = layers.ReLU(6)(layers.BatchNormalization(name="expanded_conv_depthwise_BN")(x))
    return keras.Model(pixels, layers.GlobalAveragePooling2D()(x))


def small_network(backbone: str) -> Callable[..., keras.Model]:
    """Returns what stands for a network of `keras.applications`, its first layers' names kept."""
    kinds = {"R": small_resnet, "V": small_vgg, "M": small_mobilenet}

    def constructor(**options: Any) -> keras.Model:
        return kinds[backbone[0]](**options)

    constructor.__module__ = getattr(keras.applications, backbone).__module__
    return constructor


def set_variables(model: DualPath) -> None:
    """Gives each variable a value that depends on its name alone, seeds of dropout included."""
    for name, variable in named_variables(model):
        seed = zlib.crc32(name.encode())
        draw, shape = np.random.default_rng(seed), tuple(variable.shape)
        if "seed" in variable.name:
            value = np.array([seed, 0], "uint32")
        elif variable.name in ("gamma", "moving_variance"):
            value = draw.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value = draw.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        else:
            value = draw.normal(0, 0.1, shape)
        variable.assign(value)


def training_step(name: str, number: int) -> dict[str, Any]:
    """Returns the losses of one step and what it does to each variable that it changes.

    A change is two numbers: its length, and its product with a fixed random direction.
    """
    keras.utils.clear_session()
    config = narrow(name)
    # A block of each kind.
    config = replace(config, text=replace(config.text, blocks=(2, 1, 1, 1)))
    stage = config.stage(number)
    model = build_model(config, WORDS, INSTANCES)
    set_variables(model)
    mark_trained(stage, model)
    # No schedule: its rates are float32.
    compile_stage(stage, model, model, stage.learning_rate, run_eagerly=True)

    draw = np.random.default_rng(number)
    ids = np.array([3, 0, 5, 2])
    batch = {
        "image": draw.uniform(0, 255, (BATCH, SIZE, SIZE, 3)),
        "text": draw.integers(0, WORDS + 1, (BATCH, config.text.max_length)),
        "instance": ids,
    }
    named = {n: v for n, v in named_variables(model) if "seed" not in v.name}
    before = {name: v.numpy() for name, v in named.items()}
    losses = model.train_on_batch(*to_inputs_and_targets(stage.loss, batch), return_dict=True)
    changes = {}
    for name, variable in named.items():
        change = variable.numpy() - before[name]
        if change.any():
            direction = np.random.default_rng(zlib.crc32(name.encode())).normal(size=change.shape)
            changes[name] = [float(np.linalg.norm(change)), float(np.sum(change * direction))]
    return {"losses": {k: float(v) for k, v in losses.items()}, "changes": changes}


@pytest.fixture
def small_backbones_in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A step of 1e-7 on a weight of 1 is lost in float32.
    for backbone in BACKBONES:
        monkeypatch.setattr(keras.applications, backbone, small_network(backbone))
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


# --- they are what they were ----------------------------------------------------------------------


@each_preset
def test_every_variable_has_its_rate_and_its_decay(preset: str):
    golden, config = json.loads(GOLDEN.read_text()), narrow(preset)
    names = golden["variables"][config.image.backbone]
    model = model_of(config.image.backbone, config.model.classifier_bias)
    for number in (1, 2):
        expected = golden["presets"][preset][f"stage{number}"]
        # A letter for each variable: of its rate and decay, or "-" if it is not trained.
        table = {
            name: expected["rates"][letter]
            for name, letter in zip(names, expected["letters"], strict=True)
            if letter != "-"
        }
        found = rates_and_decays(config, model, number)
        assert found.keys() == table.keys(), number
        for name, rate_and_decay in found.items():
            assert rate_and_decay == pytest.approx(table[name], rel=1e-12), name


@each_preset
@pytest.mark.usefixtures("small_backbones_in_float64")
def test_a_training_step_does_what_it_did(preset: str):
    golden = json.loads(GOLDEN.read_text())
    for number in (1, 2):
        expected = golden["presets"][preset][f"stage{number}"].get("step")
        if expected is None:
            # A small network stands for ResNet-50 and ResNet-152 alike.
            continue
        found = training_step(preset, number)
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
        assert found["changes"].keys() == expected["changes"].keys()
        for name, change in found["changes"].items():
            length = expected["changes"][name][0]
            assert change == pytest.approx(
                expected["changes"][name], rel=1e-4, abs=1e-4 * length + 1e-10
            ), (number, name)
