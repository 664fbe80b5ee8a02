"""Members side by side: each is the tower that it would be alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.unit.models.test_folding import stirred
from tests.unit.models.test_trimming import any_length, sentences
from tf_dpce.models import text_tower
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.image_tower import image_head
from tf_dpce.models.layers import UnitLength
from tf_dpce.models.trimming import needed_places, trimming

WORDS, PLACES = 30, 26


def texts(members: int, width: int, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    tower = text_tower(
        *(WORDS, PLACES, 6, (1, 1, 2), width), widths=(8, 12, 16), dropout=0.3, members=members
    )
    tower.get_layer("text_embedding").bias.assign(np.linspace(-1, 1, 6))
    return stirred(tower, seed)


def heads(members: int, width: int, head_dim: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    return stirred(image_head(7, width, head_dim, dropout=0.3, members=members))


def one_alone(both: keras.Model, alone: keras.Model, name: str) -> keras.Model:
    """Gives a tower of one member the weights that the member `name` has."""
    tower = name.rstrip("0123456789")
    for layer in alone.layers:
        if layer.weights:
            shared = layer.name == "text_embedding"
            own = layer.name if shared else layer.name.replace(tower, name, 1)
            layer.set_weights(both.get_layer(own).get_weights())
    return alone


@pytest.mark.parametrize("member", [0, 1])
def test_a_member_of_a_text_tower_is_one_alone(member: int):
    both = texts(2, width=10)
    alone = one_alone(both, texts(1, width=5, seed=1), f"text{member + 1}")
    ids = sentences([0, 4, 9, PLACES], PLACES, seed=0)
    own = both(ids).numpy()[:, 5 * member : 5 * member + 5]
    np.testing.assert_allclose(own, alone(ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("member", [0, 1])
@pytest.mark.parametrize("head_dim", [0, 6])
def test_a_member_of_a_head_is_one_alone(head_dim: int, member: int):
    both = heads(2, 10, head_dim)
    alone = one_alone(both, heads(1, 5, head_dim), f"image{member + 1}")
    features = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    own = both(features).numpy()[:, 5 * member : 5 * member + 5]
    np.testing.assert_allclose(own, alone(features), rtol=1e-5, atol=1e-6)


def test_members_are_masked_apart_and_start_apart():
    tower = texts(2, width=10)
    pooled = keras.Model(
        tower.input, [tower.get_layer(f"text{m}_feature_dropout").output for m in (1, 2)]
    )
    kernels = [tower.get_layer(f"text{m}_fc").get_weights()[0] for m in (1, 2)]
    assert not np.allclose(*kernels)
    # With the same weights they differ by their masks alone.
    for layer in tower.layers:
        if layer.name.startswith("text1"):
            tower.get_layer(layer.name.replace("text1", "text2", 1)).set_weights(
                layer.get_weights()
            )
    ids = sentences([20] * 8, PLACES, 0)
    np.testing.assert_array_equal(*pooled(ids, training=False))
    one, other = pooled(ids, training=True)
    assert ((one.numpy() == 0) != (other.numpy() == 0)).any()


def test_a_width_that_members_cannot_share_is_refused():
    with pytest.raises(ValueError, match="share a width evenly"):
        text_tower(WORDS, PLACES, 6, (1,), 9, widths=(8,), members=2)
    with pytest.raises(ValueError, match="share a width evenly"):
        image_head(7, 9, 0, members=2)
    with pytest.raises(ValueError, match="share a width evenly"):
        UnitLength(2)(np.ones((1, 9), np.float32))


def test_members_need_the_places_that_one_needs():
    assert needed_places(texts(3, width=6)) == needed_places(texts(1, width=6))
    tower = texts(2, width=10)
    trim = trimming(tower)
    encode = any_length(lambda ids: tower(trim(ids)))
    for lengths in ([0], [1], [4, 9, 2], [PLACES]):
        ids = sentences(lengths, PLACES, 0)
        np.testing.assert_allclose(encode(ids), tower(ids), rtol=1e-5, atol=1e-6)


def test_members_fold_as_one_does():
    draw = np.random.default_rng(0)
    ids, features = sentences([0, 4, 9], PLACES, 0), draw.normal(size=(3, 7)).astype(np.float32)
    for tower, rows in ((texts(2, width=10), ids), (heads(2, 10, 6), features)):
        expected = tower(rows, training=False)
        np.testing.assert_allclose(folded(tower)(rows), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("members", [1, 2, 5])
def test_a_cosine_is_the_mean_of_the_members_cosines(members: int):
    draw = np.random.default_rng(members)
    one, other = draw.normal(size=(2, 4, 10)).astype(np.float32)
    unit = UnitLength(members)
    parts = [np.split(np.asarray(unit(rows)), members, axis=1) for rows in (one, other)]
    for part in parts[0]:
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), members**-0.5, rtol=1e-5)

    def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    expected = np.mean([cosines(a, b) for a, b in zip(*parts, strict=True)], axis=0)
    found = np.sum(np.asarray(unit(one)) * np.asarray(unit(other)), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    again = UnitLength.from_config(unit.get_config())
    np.testing.assert_array_equal(again(one), unit(one))
