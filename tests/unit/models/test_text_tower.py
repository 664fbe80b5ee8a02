"""The text tower, layer by layer against the table of the recipe."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tf_dpce.models import text_tower
from tf_dpce.models.image_tower import image_head

VOCABULARY = 50

# Section 2 of the recipe: weights of the convolutions, and BatchNorm's gamma and beta. Words
# enter 300 wide. A block squeezes (1x1), convolves (1x2) and widens (1x1); the first of a group
# has a projection beside. Block 1 of group 1: 300*128 + 2*128*128 + 128*256 + 300*256 = 180,736.
TABLE = {
    "text_embedding_bn": (0, 600),
    "text_1_1": (180_736, 1_536),
    **{f"text_1_{block}": (40_960, 768) for block in (2, 3)},
    "text_2_1": (1_048_576, 4_096),
    **{f"text_2_{block}": (163_840, 1_536) for block in (2, 3, 4)},
    "text_3_1": (4_194_304, 8_192),
    **{f"text_3_{block}": (655_360, 3_072) for block in range(2, 7)},
    "text_4_1": (16_777_216, 16_384),
    "text_fc": (4_194_304, 4_096),
}


@pytest.fixture(scope="module")
def tower() -> keras.Model:
    return text_tower(VOCABULARY)


@pytest.fixture(scope="module")
def narrow() -> keras.Model:
    """Two blocks; random gammas and betas, so that BatchNorm is no identity."""
    keras.utils.set_random_seed(0)
    tower = text_tower(VOCABULARY, 8, 6, blocks=(1, 1), output_dim=5, widths=(16, 32))
    draw = np.random.default_rng(0)
    for variable in tower.variables:
        if "_bn/" in variable.path:
            variable.assign(draw.uniform(0.5, 1.5, variable.shape))
    tower.get_layer("text_embedding").bias.assign(draw.normal(size=6))
    return tower


def count(tower: keras.Model, prefix: str, batch_norm: bool) -> int:
    return sum(
        int(np.prod(variable.shape))
        for layer in tower.layers
        if layer.name.startswith(f"{prefix}_") or layer.name == prefix
        for variable in layer.trainable_variables
        if isinstance(layer, keras.layers.BatchNormalization) == batch_norm
    )


def test_parameters(tower: keras.Model):
    for block, expected in TABLE.items():
        assert (count(tower, block, False), count(tower, block, True)) == expected, block
    # 30,245,376 weights of convolutions and 56,408 of BatchNorm; beside them the words.
    assert sum(weights for weights, _ in TABLE.values()) == 30_245_376
    assert sum(norms for _, norms in TABLE.values()) == 56_408
    trainable = sum(int(np.prod(v.shape)) for v in tower.trainable_variables)
    assert trainable == 30_301_784 + VOCABULARY * 300 + 300


def test_layers_of_all(tower: keras.Model):
    convolutions = [x for x in tower.layers if isinstance(x, keras.layers.Conv1D)]
    # 14 blocks of 3 and 4 projections; with the dense layer the 47 that follow the words.
    assert len(convolutions) == 14 * 3 + 4
    assert not any(layer.use_bias for layer in convolutions)
    norms = [x for x in tower.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(n.epsilon, n.momentum) for n in norms} == {(1e-3, 0.95)}
    assert len(norms) == len(convolutions) + 2


def test_lengths():
    last_blocks = ("text_1_3", "text_2_4", "text_3_6", "text_4_1")
    for length, halved, quartered in ((32, 16, 8), (56, 28, 14)):
        tower = text_tower(VOCABULARY, length, 4, output_dim=3, widths=(4, 8, 12, 16))
        shapes = [tower.get_layer(f"{block}_relu").output.shape[1:] for block in last_blocks]
        assert shapes == [(length, 4), (halved, 8), (quartered, 12), (quartered, 16)]
        assert tower.output_shape == (None, 3)


def positions_seen(tower: keras.Model, layer: str, position: int) -> set[int]:
    """Which input positions change an output position of a layer, found by changing each."""
    model = keras.Model(tower.input, tower.get_layer(layer).output)
    length = tower.input_shape[1]
    draw = np.random.default_rng(1)
    ids = draw.integers(1, VOCABULARY // 2, (1, length))
    changed = np.repeat(ids, length, axis=0) + VOCABULARY // 2 * np.eye(length, dtype=int)
    before, after = model.predict(ids, verbose=0), model.predict(changed, verbose=0)
    return {
        i for i in range(length) if np.abs(after[i, position] - before[0, position]).max() > 1e-6
    }


def test_a_convolution_sees_one_position_to_the_left_and_none_to_the_right(narrow: keras.Model):
    assert positions_seen(narrow, "text_1_1_relu", 0) == {0}
    assert positions_seen(narrow, "text_1_1_relu", 5) == {4, 5}
    assert positions_seen(narrow, "text_1_1_relu", 7) == {6, 7}


def test_a_stride_keeps_the_even_positions(narrow: keras.Model):
    # Left pad 1, stride 2: position j of the second group sees 2j - 1 and 2j of the first.
    assert positions_seen(narrow, "text_2_1_relu", 0) == {0}
    assert positions_seen(narrow, "text_2_1_relu", 2) == {2, 3, 4}


def test_empty_positions_are_not_masked(narrow: keras.Model):
    """The pooling takes the maximum over empty positions as well: the authors' code has no mask."""
    ids = np.array([[1, 2, 0, 0, 0, 0, 0, 0]])
    pooled = keras.Model(
        narrow.input, [narrow.get_layer(f"text_{x}").output for x in ("2_1_relu", "pool")]
    )
    positions, maximum = pooled.predict(ids, verbose=0)
    assert maximum[0] == pytest.approx(positions[0].max(axis=0))
    # Words 1 and 2 reach the positions 0 and 1; some of the maxima come from the empty rest.
    assert (positions[0, 2:].max(axis=0) > positions[0, :2].max(axis=0)).any()


def test_words_start_in_the_range_of_fan_in_and_the_bias_at_zero(tower: keras.Model):
    kernel = tower.get_layer("text_4_1_b").kernel.numpy()
    # Uniform in +-sqrt(3 / fan_in), fan_in = 2 positions * 2048 channels.
    limit = np.sqrt(3 / 4096)
    assert np.abs(kernel).max() == pytest.approx(limit, rel=1e-3)
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=1e-2)
    assert not tower.get_layer("text_embedding").bias.numpy().any()


def test_word_dropout_hides_whole_words_in_training_alone():
    tower = text_tower(VOCABULARY, 64, 4, (1,), 3, widths=(4,), word_dropout=0.5)
    vectors = keras.Model(tower.input, tower.get_layer("text_word_dropout").output)
    ids = np.arange(64).reshape(1, 64) % VOCABULARY + 1
    hidden = np.array(vectors(ids, training=True))[0] == 0
    # A position is hidden whole or not at all; of 64 places half on average (4 sigma: 16 to 48).
    assert (hidden.all(axis=1) == hidden.any(axis=1)).all()
    assert 16 <= hidden.all(axis=1).sum() <= 48
    assert np.array(vectors(ids, training=False)).all()


def test_feature_dropout_acts_in_training_alone_and_doubles_the_rest():
    for layer_name, tower, inputs in (
        (
            "text_feature_dropout",
            text_tower(VOCABULARY, 8, 4, (1,), 3, widths=(4,), dropout=0.5),
            8,
        ),
        ("image_feature_dropout", image_head(2_000, 3, 4, dropout=0.5), 2_000),
    ):
        layer = tower.get_layer(layer_name)
        features = keras.Model(tower.input, [layer.input, layer.output])
        ones = np.ones((64, inputs), int)
        before, after = (np.array(x) for x in features(ones, training=True))
        stays = after != 0
        np.testing.assert_allclose(after[stays], 2 * before[stays], rtol=1e-6)
        assert 0.3 < stays[before != 0].mean() < 0.7
        before, after = features(ones, training=False)
        np.testing.assert_array_equal(before, after)


def test_blocks_without_widths_are_refused():
    for blocks in ((), (1, 1, 1)):
        with pytest.raises(ValueError):
            text_tower(VOCABULARY, blocks=blocks, widths=(8, 8))


def test_the_order_of_words_matters(narrow: keras.Model):
    ids = np.array([[1, 2, 3, 4, 0, 0, 0, 0], [4, 2, 3, 1, 0, 0, 0, 0]])
    one, other = narrow.predict(ids, verbose=0)
    assert np.abs(one - other).max() > 1e-3
