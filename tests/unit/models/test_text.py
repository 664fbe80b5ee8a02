"""The text tower, layer by layer against the table of the recipe."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tf_dpce.models import bag_of_words_tower, text_tower
from tf_dpce.models.image_tower import image_head
from tf_dpce.models.layers import WordEmbedding

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


@pytest.mark.parametrize("block", TABLE)
def test_parameters_of_each_block(tower: keras.Model, block: str):
    assert (count(tower, block, False), count(tower, block, True)) == TABLE[block]


def test_parameters_of_all(tower: keras.Model):
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


@pytest.mark.parametrize(("length", "halved", "quartered"), [(32, 16, 8), (56, 28, 14)])
def test_lengths(length: int, halved: int, quartered: int):
    tower = text_tower(VOCABULARY, length, 4, output_dim=3, widths=(4, 8, 12, 16))
    shapes = [tower.get_layer(f"text_{g}_{b}_relu").output.shape for g, b in enumerate_last()]
    assert shapes == [
        (None, length, 4),
        (None, halved, 8),
        (None, quartered, 12),
        (None, quartered, 16),
    ]
    assert tower.output_shape == (None, 3)


def enumerate_last() -> list[tuple[int, int]]:
    return list(enumerate((3, 4, 6, 1), start=1))


def places_seen(tower: keras.Model, layer: str, place: int) -> set[int]:
    """Which input places change an output place of a layer, found by changing each."""
    model = keras.Model(tower.input, tower.get_layer(layer).output)
    length = tower.input_shape[1]
    draw = np.random.default_rng(1)
    ids = draw.integers(1, VOCABULARY // 2, (1, length))
    changed = np.repeat(ids, length, axis=0) + VOCABULARY // 2 * np.eye(length, dtype=int)
    before, after = model.predict(ids, verbose=0), model.predict(changed, verbose=0)
    return {i for i in range(length) if np.abs(after[i, place] - before[0, place]).max() > 1e-6}


def test_a_convolution_sees_one_place_to_the_left_and_none_to_the_right(narrow: keras.Model):
    assert places_seen(narrow, "text_1_1_relu", 0) == {0}
    assert places_seen(narrow, "text_1_1_relu", 5) == {4, 5}
    assert places_seen(narrow, "text_1_1_relu", 7) == {6, 7}


def test_a_stride_keeps_the_even_places(narrow: keras.Model):
    # Left pad 1, stride 2: place j of the second group sees 2j - 1 and 2j of the first.
    assert places_seen(narrow, "text_2_1_relu", 0) == {0}
    assert places_seen(narrow, "text_2_1_relu", 2) == {2, 3, 4}


def test_an_empty_place_gives_the_bias_and_a_word_its_row_and_the_bias():
    layer = WordEmbedding(3, 2)
    layer.build((None, 4))
    layer.embeddings.assign([[1, 2], [3, 4], [5, 6]])
    layer.bias.assign([10, 20])
    # Word 1 has the first row; id 0 has none.
    assert np.array(layer(np.array([[0, 1, 3, 0]]))).tolist() == [
        [[10, 20], [11, 22], [15, 26], [10, 20]]
    ]


def test_empty_places_are_not_masked(narrow: keras.Model):
    """The pooling takes the maximum over empty places as well: the authors' code has no mask."""
    ids = np.array([[1, 2, 0, 0, 0, 0, 0, 0]])
    pooled = keras.Model(
        narrow.input, [narrow.get_layer(f"text_{x}").output for x in ("2_1_relu", "pool")]
    )
    places, maximum = pooled.predict(ids, verbose=0)
    assert maximum[0] == pytest.approx(places[0].max(axis=0))
    # Words 1 and 2 reach the places 0 and 1; some of the maxima come from the empty rest.
    assert (places[0, 2:].max(axis=0) > places[0, :2].max(axis=0)).any()


def test_words_start_in_the_range_of_fan_in_and_the_bias_at_zero(tower: keras.Model):
    kernel = tower.get_layer("text_4_1_b").kernel.numpy()
    # Uniform in +-sqrt(3 / fan_in), fan_in = 2 places * 2048 channels.
    limit = np.sqrt(3 / 4096)
    assert np.abs(kernel).max() == pytest.approx(limit, rel=1e-3)
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=1e-2)
    assert not tower.get_layer("text_embedding").bias.numpy().any()


def test_word_dropout_hides_whole_words_in_training_alone():
    tower = text_tower(VOCABULARY, 64, 4, (1,), 3, widths=(4,), word_dropout=0.5)
    vectors = keras.Model(tower.input, tower.get_layer("text_word_dropout").output)
    ids = np.arange(64).reshape(1, 64) % VOCABULARY + 1
    hidden = np.array(vectors(ids, training=True))[0] == 0
    # A place is hidden whole or not at all; of 64 places half on average (4 sigma: 16 to 48).
    assert (hidden.all(axis=1) == hidden.any(axis=1)).all()
    assert 16 <= hidden.all(axis=1).sum() <= 48
    assert np.array(vectors(ids, training=False)).all()


@pytest.mark.parametrize("modality", ["text", "image"])
def test_feature_dropout_acts_in_training_alone_and_keeps_the_mean(modality: str):
    tower, inputs = {
        "text": lambda: (text_tower(VOCABULARY, 8, 4, (1,), 3, widths=(4,), dropout=0.5), 8),
        "image": lambda: (image_head(2_000, 3, 4, dropout=0.5), 2_000),
    }[modality]()
    layer = tower.get_layer(f"{modality}_feature_dropout")
    features = keras.Model(tower.input, [layer.input, layer.output])
    before, after = features(np.ones((64, inputs), int), training=True)
    kept = np.array(after) != 0
    # What is kept is doubled.
    np.testing.assert_allclose(np.array(after)[kept], 2 * np.array(before)[kept], rtol=1e-6)
    assert 0.3 < kept[np.array(before) != 0].mean() < 0.7
    before, after = features(np.ones((64, inputs), int), training=False)
    np.testing.assert_array_equal(before, after)


# Keras's own saving converts variables in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_saved_and_loaded_it_gives_the_same_features(narrow: keras.Model, tmp_path):
    narrow.save(tmp_path / "tower.keras")
    again = keras.saving.load_model(tmp_path / "tower.keras")
    ids = np.random.default_rng(0).integers(0, VOCABULARY + 1, (4, 8))
    expected = narrow.predict(ids, verbose=0)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(again.predict(ids, verbose=0), expected)


@pytest.mark.parametrize("blocks", [(), (1, 1, 1)])
def test_blocks_without_widths_are_refused(blocks: tuple[int, ...]):
    with pytest.raises(ValueError, match="One width for each group"):
        text_tower(VOCABULARY, blocks=blocks, widths=(8, 8))


def test_a_bag_of_words_is_blind_to_order_and_the_convolutions_are_not(narrow: keras.Model):
    keras.utils.set_random_seed(0)
    bag = bag_of_words_tower(VOCABULARY, 8, 6, (16,), 5)
    ids = np.array([[1, 2, 3, 4, 0, 0, 0, 0]])
    swapped = np.array([[4, 2, 3, 1, 0, 0, 0, 0]])
    gap = {
        t: np.abs(t.predict(ids, verbose=0) - t.predict(swapped, verbose=0)).max()
        for t in (bag, narrow)
    }
    assert gap[bag] < 1e-6 < 1e-3 < gap[narrow]
    assert bag.output_shape == (None, 5)
