"""A step against the machine's matrix product, and the operations that are counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.limits import (
    Product,
    copying,
    map_moves,
    multiplying,
    step_multiply_adds,
    step_products,
)
from benchmarks.step import _limits, _rows, measure
from benchmarks.timing import Ratio, Row
from tests.unit.benchmarks.rows import check_rows
from tests.unit.benchmarks.test_mining import TOWERS
from tf_dpce.config import from_dict
from tf_dpce.models import text_tower
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.image_tower import image_head

# Of a pair. A group of one block on 6 places of 4 numbers, 8 wide, its middle 4 wide:
# 6 * (4*4 + 2*4*4 + 4*8 + 4*8) = 672, and a dense layer 8*8; before all of them words are trained.
TEXT = 3 * (672 + 64)


@pytest.mark.parametrize(
    ("head_dim", "head"),
    [
        # Features are given: no gradient goes to them.
        (0, 2 * 5 * 8),
        (7, 2 * 5 * 7 + 3 * 7 * 8),
    ],
)
@pytest.mark.parametrize(
    ("losses", "scored"),
    [({"pair"}, 0), ({"text_logits", "pair"}, 1), ({"image_logits", "text_logits"}, 2)],
)
def test_multiply_adds_are_those_of_the_layers(
    head_dim: int, head: int, losses: set[str], scored: int
):
    images = image_head(input_dim=5, output_dim=8, head_dim=head_dim)
    texts = text_tower(40, max_length=6, embedding_dim=4, blocks=(1,), output_dim=8, widths=(8,))
    network = DualPath(images, texts, num_instances=200)
    assert step_multiply_adds(network, losses) == head + TEXT + scored * 3 * 8 * 200


def small_network() -> DualPath:
    images = image_head(input_dim=5, output_dim=8, head_dim=7)
    texts = text_tower(40, max_length=6, embedding_dim=4, blocks=(1,), output_dim=8, widths=(8,))
    return DualPath(images, texts, num_instances=200)


def test_products_have_the_shapes_of_the_layers():
    assert step_products(small_network(), {"text_logits", "pair"}, batch_size=10) == [
        # No gradient goes to features.
        Product(10, 5, 7, trained_before=False),
        Product(10, 7, 8, trained_before=True),
        # 6 places; the middle convolution sees two of them.
        *[Product(60, *width, trained_before=True) for width in [(4, 4), (4, 4), (4, 4)]],
        *[Product(60, 4, 8, trained_before=True)] * 2,
        Product(10, 8, 8, trained_before=True),
        Product(10, 8, 200, trained_before=True),
    ]


def test_bytes_are_those_of_the_maps_of_both_towers():
    # Of 6 places: BatchNorm of words and of two convolutions, and two ReLU, 4 wide; BatchNorm of
    # two convolutions, the sum, its ReLU and the pooling, 8 wide. Of vectors: each tower's last
    # BatchNorm, 8 wide, and that of the head's first layer with its ReLU, 7 wide.
    assert map_moves(small_network(), batch_size=10) == {
        10 * 6 * 4: 3 * 8 + 2 * 5,
        10 * 6 * 8: 2 * 8 + 6 + 5 + 3,
        10 * 8: 2 * 8,
        10 * 7: 8 + 5,
    }


def test_every_product_and_every_copy_is_made(monkeypatch: pytest.MonkeyPatch):
    made, copied = [], []
    matmul, negative = tf.matmul, tf.negative
    monkeypatch.setattr(tf, "matmul", lambda *a, **k: made.append(matmul(*a, **k)))
    monkeypatch.setattr(tf, "negative", lambda x: copied.append(negative(x)))
    multiplying([Product(10, 4, 3, True), Product(10, 5, 2, False)])()
    shapes = [(10, 3), (4, 3), (10, 4), (10, 2), (5, 2)]
    assert [tuple(product.shape) for product in made] == shapes
    # Each reads and writes: two of 5 moves are a copy too many for one of them.
    copying(Counter({12: 5, 7: 2}))()
    assert [int(tf.size(copy)) for copy in copied] == [12, 12, 12, 7]


def test_what_is_least_is_compared_with_the_step():
    seconds = {
        "step": np.array([5.0, 10.0]),
        "update": np.array([1.0, 2.0]),
        "its own matrix products": np.array([2.0, 4.0]),
        "copies of as many bytes": np.array([1.0, 3.0]),
    }
    rows = {(r.name, r.unit): r for r in _limits(seconds, work=12 * 10**9, moved=3 * 2**30)}
    assert rows["its own matrix products", "ms"].ratio == Ratio("step", 0.4, 0.4, 0.4)
    rate = rows["its own matrix products", "billion multiply-adds a second"]
    assert (rate.low, rate.high) == (3, 6)
    assert rows["bytes that its maps must move", "GiB"].median == 3
    assert rows["copies of as many bytes", "ms"].ratio.high == pytest.approx(0.3)
    least = rows["products, copies and update", "ms"]
    assert (least.low, least.high) == (4000, 9000)
    assert (least.ratio.low, least.ratio.high) == (pytest.approx(0.8), pytest.approx(0.9))


def test_figures_are_made_of_the_seconds_of_a_round():
    seconds = {
        "step": np.array([5.0, 10.0]),
        "step on one batch in memory": np.array([4.5, 9.5]),
        "text side alone": np.array([4.0, 9.0]),
        "update": np.array([1.0, 2.0]),
        "float32 matrix product": np.array([2.0, 4.0]),
    }
    # 8 pairs; 12e9 multiply-adds in the 4 and 8 seconds beside the update, 10e9 in the product.
    rows = _rows(seconds, batch_size=8, work=12 * 10**9, work_of_products=10 * 10**9)
    check_rows(rows)
    figures = {(row.name, row.unit): row for row in rows}
    assert figures["step", "ms"] == Row("step", "ms", 7500, 5000, 10000)
    assert figures["step", "pairs a second"].median == pytest.approx((8 / 5 + 8 / 10) / 2)
    assert figures["step on one batch in memory", "ms"].ratio == Ratio(
        "step", pytest.approx(0.925), 0.9, 0.95
    )
    assert figures["text side alone", "ms"].ratio == Ratio("step", pytest.approx(0.85), 0.8, 0.9)
    assert figures["the optimizer's update", "ms"].ratio == Ratio("step", 0.2, 0.2, 0.2)
    assert figures["multiply-adds of a step", "billion"].median == 12
    # 3 of 5 and 1.5 of 2.5.
    share = figures["step without its update", "billion multiply-adds a second"].ratio
    assert share == Ratio("float32 matrix product", *[pytest.approx(0.6)] * 3)


def test_step_update_and_product_are_timed_together():
    rows = measure(from_dict(TOWERS), batch_size=4, classes=24, words=30, side=64, rounds=3)
    # Of towers so small, a busy machine may find the update longer than the step around it.
    check_rows([row for row in rows if row.name != "step without its update"])
    assert len(rows) == 14
