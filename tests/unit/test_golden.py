"""Text tower, classifier and losses against a plain NumPy reading of the recipe.

Nothing here looks at how the layers are written. It is the paper's section 2 and 4, in 64 bits and
one caption at a time, with the weights of the Keras model under their names.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tf_dpce import DualPath, text_tower
from tf_dpce.losses import InstanceLoss, RankingLoss

VOCABULARY = 40

# The table of section 2: channels in, of the three convolutions, the stride, and whether the
# shortcut is a projection. The recipe's fc2_1 to fc2_3, fc2_4 to fc3_4, fc3_5 to fc4_6, fc4_7.
BLOCKS = {
    "text_1_1": ((300, 128, 128, 256), 1, True),
    **{f"text_1_{block}": ((256, 64, 64, 256), 1, False) for block in (2, 3)},
    "text_2_1": ((256, 512, 512, 512), 2, True),
    **{f"text_2_{block}": ((512, 128, 128, 512), 1, False) for block in (2, 3, 4)},
    "text_3_1": ((512, 1024, 1024, 1024), 2, True),
    **{f"text_3_{block}": ((1024, 256, 256, 1024), 1, False) for block in range(2, 7)},
    "text_4_1": ((1024, 2048, 2048, 2048), 1, True),
}
Weights = dict[str, np.ndarray]


# --- the recipe in NumPy --------------------------------------------------------------------------


def normalise(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    """BatchNorm at test time: epsilon 1e-3."""
    mean, variance = (weights[f"{name}/moving_{kind}"] for kind in ("mean", "variance"))
    gamma, beta = (weights[f"{name}/{kind}"] for kind in ("gamma", "beta"))
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """`[T, C]` by `[K, C, D]`, without bias; width 2 has one empty position on the left."""
    taps = len(kernel)
    padded = np.concatenate([np.zeros((taps - 1, x.shape[1])), x])
    starts = np.arange(0, len(padded) - taps + 1, stride)
    return sum(padded[starts + tap] @ kernel[tap] for tap in range(taps))


def bottleneck(x: np.ndarray, weights: Weights, name: str, stride: int, projected: bool):
    """1x1, BN, ReLU, 1x2, BN, ReLU, 1x1, BN; plus the shortcut; ReLU. The 1x2 has the stride."""

    def layer(x: np.ndarray, part: str, stride: int) -> np.ndarray:
        x = convolve(x, weights[f"{name}_{part}/kernel"], stride)
        return normalise(x, weights, f"{name}_{part}_bn")

    y = np.maximum(layer(x, "a", 1), 0)
    y = np.maximum(layer(y, "b", stride), 0)
    y = layer(y, "c", 1)
    return np.maximum(y + (layer(x, "shortcut", stride) if projected else x), 0)


def plain_text_feature(ids: np.ndarray, weights: Weights) -> np.ndarray:
    """Ids `[T]` -> `fc5_2bn` `[D]`: one-hot words, no mask, the maximum over all positions."""
    one_hot = np.zeros((len(ids), VOCABULARY))
    for position, word in enumerate(ids):
        if word:
            one_hot[position, word - 1] = 1
    x = one_hot @ weights["text_embedding/embeddings"] + weights["text_embedding/bias"]
    x = normalise(x, weights, "text_embedding_bn")
    for name, (_, stride, projected) in BLOCKS.items():
        x = bottleneck(x, weights, name, stride, projected)
    # Two strides of 2: 32 positions become 8, 56 become 14.
    assert len(x) == len(ids) // 4
    return normalise(x.max(axis=0) @ weights["text_fc/kernel"], weights, "text_fc_bn")


def unit(x: np.ndarray) -> np.ndarray:
    """The authors' LRN over all channels."""
    return x / np.sqrt(1e-8 + (x**2).sum(axis=-1, keepdims=True))


def cross_entropy(logits: np.ndarray, right: np.ndarray) -> float:
    """Mean of -log softmax(logits)[right] over the rows."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    shares = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    return float(np.mean([-np.log(row[label]) for row, label in zip(shares, right, strict=True)]))


def plain_ranking(image: np.ndarray, text: np.ndarray, margin: float) -> float:
    """The first half are the anchors, the second their negatives; the sum over the whole batch."""
    half, total = len(image) // 2, 0.0
    for k in range(half):
        x, y, x_wrong, y_wrong = image[k], text[k], image[half + k], text[half + k]
        total += max(0.0, margin - (x @ y - x @ y_wrong))
        total += max(0.0, margin - (x @ y - y @ x_wrong))
    return total / len(image)


# --- the Keras side -------------------------------------------------------------------------------


def narrowed(factor: int, length: int) -> keras.Model:
    """The default blocks with all widths divided, and different weights everywhere."""
    tower = text_tower(
        VOCABULARY,
        length,
        300 // factor,
        output_dim=2048 // factor,
        widths=[width // factor for width in (256, 512, 1024, 2048)],
    )
    draw = np.random.default_rng(length)
    for variable in tower.variables:
        variable.assign(value(draw, variable.name, tuple(variable.shape)))
    return tower


def value(draw: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name in ("gamma", "moving_variance"):
        return draw.uniform(0.5, 1.5, shape)
    if name == "kernel":
        return draw.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[:-1]))
    return draw.normal(0, 0.5, shape)


def weights_of(model: keras.Model) -> Weights:
    """All weights as `LAYER/WEIGHT`, in 64 bits."""
    return {
        f"{layer.name}/{variable.name}": variable.numpy().astype(np.float64)
        for layer in model.layers
        for variable in layer.variables
    }


def captions(length: int) -> np.ndarray:
    """Ten words at the left, shifted, at the right; a full caption; none; a single word."""
    words = np.random.default_rng(1).integers(1, VOCABULARY + 1, length)
    ids = np.zeros((6, length), np.int32)
    ids[0, :10] = ids[1, 7:17] = ids[2, -10:] = words[:10]
    ids[3] = words
    ids[5, 0] = VOCABULARY
    return ids


def outputs_of(model: keras.Model, inputs: object) -> object:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(inputs, training=False))


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-5 of the largest value."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


# --- they agree -----------------------------------------------------------------------------------


# Of its real width, and for persons' longer captions.
@pytest.mark.parametrize(
    ("factor", "length"),
    [(8, 32), *(pytest.param(*case, marks=pytest.mark.full) for case in ((8, 56), (1, 32)))],
)
def test_the_text_tower_is_the_recipes(factor: int, length: int):
    tower, ids = narrowed(factor, length), captions(length)
    weights = weights_of(tower)
    for name, (channels, _, projected) in BLOCKS.items():
        first, *rest = (width // factor for width in channels)
        shapes = [(1, first, rest[0]), (2, rest[0], rest[1]), (1, rest[1], rest[2])]
        assert [weights[f"{name}_{part}/kernel"].shape for part in "abc"] == shapes
        assert (f"{name}_shortcut/kernel" in weights) == projected
    expected = np.stack([plain_text_feature(caption, weights) for caption in ids])
    assert_equal(outputs_of(tower, ids), expected)
    # The captions differ by more than the tolerance, also those of the same words at two positions.
    gaps = np.abs(expected[:, None] - expected[None]).max(axis=2) + np.eye(len(ids))
    assert gaps.min() > 0.01 * np.abs(expected).max()


@pytest.fixture(scope="module")
def batch() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, Weights]:
    """The outputs of the model for 32 pairs, the features of both towers, and its weights.

    The image's feature is an input: its tower is not the recipe's own work.
    """
    tower = narrowed(32, 32)
    feature = keras.Input((64,))
    image_tower = keras.Model(feature, keras.layers.Identity()(feature))
    model = DualPath(image_tower, tower, num_instances=50, dropout=0.75)
    draw = np.random.default_rng(2)
    for variable in model.classifier.variables:
        variable.assign(draw.normal(size=variable.shape))
    images = draw.normal(size=(32, 64))
    ids = draw.integers(0, VOCABULARY + 1, (32, 32))
    found = outputs_of(model, {"image": images.astype(np.float32), "text": ids})
    weights = weights_of(tower)
    texts = np.stack([plain_text_feature(caption, weights) for caption in ids])
    return found, images, texts, weights_of(model)


def test_the_instance_loss_is_the_recipes(batch):
    found, images, texts, weights = batch
    labels = np.random.default_rng(3).integers(0, 50, 32)
    for name, features in (("image_logits", images), ("text_logits", texts)):
        # One W for both, on rectified features as they are, without dropout at test time.
        logits = np.maximum(features, 0) @ weights["instance_classifier/kernel"]
        logits = logits + weights["instance_classifier/bias"]
        assert_equal(found[name], logits)
        loss = float(InstanceLoss()(labels, found[name]))
        assert loss == pytest.approx(cross_entropy(logits, labels), rel=1e-5)


@pytest.mark.parametrize("margin", [1.0, 0.5])
def test_the_ranking_loss_is_the_recipes(batch, margin: float):
    found, images, texts, _ = batch
    expected = plain_ranking(unit(np.maximum(images, 0)), unit(np.maximum(texts, 0)), margin)
    # Instances and roles: the anchor of pair k has role 2k, its negative 2k + 1.
    roles = np.concatenate([2 * np.arange(16), 2 * np.arange(16) + 1])
    targets = np.stack([np.arange(32), roles], axis=1)
    loss = float(RankingLoss(margin, "paired")(targets, found["pair"]))
    assert expected > 0.1
    assert loss == pytest.approx(expected, rel=1e-5)
