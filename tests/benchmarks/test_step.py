"""A step against the machine's matrix product, and the operations that are counted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.rows import check_rows
from tests.benchmarks.test_mining import TOWERS
from tf_dpce.benchmarks.step import _rows, measure, step_multiply_adds
from tf_dpce.benchmarks.timing import Ratio, Row
from tf_dpce.config import from_dict
from tf_dpce.model import DualPath
from tf_dpce.towers import text_tower
from tf_dpce.towers.image import image_head

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
    assert len(rows) == 9
