"""The model that joins the towers, and the one classifier that both share."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tf_dpce import DualPath, image_tower, text_tower
from tf_dpce.models.dual_path import InstanceClassifier, RowClassifier

WIDTH, CLASSES, WORDS, POSITIONS = 6, 9, 20, 8

# Keras's own saving converts variables in a way that NumPy 2 deprecates.
DEPRECATED = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def build(relu_before_losses: bool = True) -> DualPath:
    keras.utils.set_random_seed(0)
    model = DualPath(
        image_tower("small", input_size=32, output_dim=WIDTH, head_dim=8),
        text_tower(WORDS, POSITIONS, 4, (1,), WIDTH, widths=(8,)),
        CLASSES,
        dropout=0.5,
        relu_before_losses=relu_before_losses,
    )
    # Both signs in every feature, and a bias to tell.
    draw = np.random.default_rng(0)
    for variable in model.variables:
        if variable.path.endswith(("fc2_bn/beta", "text_fc_bn/beta", "instance_classifier/bias")):
            variable.assign(draw.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def model() -> DualPath:
    return build()


def batch(rows: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "image": draw.uniform(0, 255, (rows, 32, 32, 3)).astype(np.float32),
        "text": draw.integers(0, WORDS + 1, (rows, POSITIONS)),
    }


def call(model: keras.Model, inputs: object, training: bool = False) -> dict[str, np.ndarray]:
    outputs = model(inputs, training=training)
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}


@pytest.mark.parametrize("relu_before_losses", [True, False])
def test_every_output_is_what_its_definition_says(relu_before_losses: bool):
    model, inputs = build(relu_before_losses=relu_before_losses), batch()
    outputs = call(model, inputs)
    assert len(outputs) == 6 and outputs["pair"].shape == (5, 2, WIDTH)
    kernel, bias = model.classifier.kernel.numpy(), model.classifier.bias.numpy()
    for position, modality in enumerate(("image", "text")):
        feature = getattr(model, f"{modality}_tower").predict(inputs[modality], verbose=0)
        assert (feature < 0).any(), "or the ReLU would not show"
        active = np.maximum(feature, 0) if relu_before_losses else feature
        # Before the ReLU: what is compared at test time. After it: what the losses see.
        embedding = feature / np.sqrt(1e-8 + (feature**2).sum(1, keepdims=True))
        pair = active / np.sqrt(1e-8 + (active**2).sum(1, keepdims=True))
        assert outputs[f"{modality}_embedding"] == pytest.approx(embedding, abs=1e-5)
        assert outputs["distillation"][:, position] == pytest.approx(embedding, abs=1e-5)
        encoder = getattr(model, f"{modality}_encoder")
        vectors = encoder.predict(inputs[modality], verbose=0)
        assert vectors == pytest.approx(embedding, abs=1e-5)
        assert outputs["pair"][:, position] == pytest.approx(pair, abs=1e-5)
        # One and the same matrix and bias for both modalities.
        assert outputs[f"{modality}_logits"] == pytest.approx(active @ kernel + bias, abs=1e-5)


def test_every_weight_has_a_name_by_its_part_and_layer(model: DualPath):
    named = dict(model.named_variables())
    weights = [variable for variable in model.variables if "seed" not in variable.name]
    assert {id(variable) for variable in named.values()} == {id(variable) for variable in weights}
    assert len(named) == len(weights)
    for name in (
        "image_backbone/image_conv1/kernel",
        "image_head/image_fc1_bn/gamma",
        "text_tower/text_embedding/embeddings",
        "instance_classifier/bias",
    ):
        assert name in named


def test_both_kinds_of_classifiers_start_in_a_tenth_of_the_range_and_score_alike():
    classifier, by_rows = InstanceClassifier(400, True), RowClassifier(400, True)
    for layer in (classifier, by_rows):
        layer.build((None, 300))
        # Section 2 of the recipe: uniform in +-sqrt(3 / fan_in), times 0.1; the bias at zero.
        limit, matrix = 0.1 * np.sqrt(3 / 300), layer.trainable_weights[0].numpy()
        assert np.abs(matrix).max() == pytest.approx(limit, rel=1e-2)
        assert matrix.std() == pytest.approx(limit / np.sqrt(3), rel=1e-2)
        assert not layer.bias.numpy().any()
        layer.bias.assign(np.arange(400))
    by_rows.rows.assign(np.transpose(classifier.kernel))
    features = np.random.default_rng(0).normal(size=(2, 300)).astype(np.float32)
    assert by_rows(features).numpy() == pytest.approx(classifier(features).numpy(), abs=1e-4)


def test_dropout_acts_on_the_classifiers_path_alone(model: DualPath):
    first, second = (call(model, batch(), training=True) for _ in range(2))
    for name in ("pair", "image_embedding", "text_embedding"):
        np.testing.assert_array_equal(first[name], second[name])
    for name in ("image_logits", "text_logits"):
        assert np.abs(first[name] - second[name]).max() > 1e-3


def test_over_features_is_the_same_model_behind_the_backbone(model: DualPath):
    inputs = batch()
    head = model.over_features()
    backbone = model.image_backbone
    features = backbone.predict(inputs["image"], verbose=0)
    expected = call(model, inputs)
    for name, value in call(head, {**inputs, "image": features}).items():
        assert value == pytest.approx(expected[name], abs=1e-5), name
    own = {id(v) for v in model.weights}
    assert {id(v) for v in head.weights} == own - {id(v) for v in backbone.weights}


@DEPRECATED
def test_saved_and_loaded_it_gives_the_same_outputs(model: DualPath, tmp_path: Path):
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again, DualPath)
    expected = call(model, batch())
    for name, value in call(again, batch()).items():
        np.testing.assert_array_equal(value, expected[name])
    # And it goes on being one: with encoders, and the shared classifier.
    vectors = again.text_encoder.predict(batch()["text"], verbose=0)
    assert vectors == pytest.approx(expected["text_embedding"], abs=1e-6)
    assert again.get_config().keys() == model.get_config().keys()
    assert (again.dropout, again.classifier_bias, again.relu_before_losses) == (0.5, "shared", True)
    towers = (
        image_tower("small", input_size=32, output_dim=WIDTH),
        text_tower(WORDS, POSITIONS, 4, (1,), WIDTH, widths=(8,)),
    )
    # Another kind of classifier survives a round trip, too.
    by_rows = DualPath(*towers, CLASSES, classifier=RowClassifier(CLASSES, False))
    again = DualPath.from_config(by_rows.get_config())
    assert type(again.classifier) is RowClassifier
    assert [variable.name for variable in again.classifier.variables] == ["rows"]
