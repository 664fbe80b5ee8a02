"""A step against the machine's matrix product, and the operations that are counted."""

from __future__ import annotations

import pytest

from tests.benchmarks.rows import check_rows
from tests.benchmarks.test_mining import TOWERS
from tf_dpce.benchmarks.step import measure, step_multiply_adds
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


def test_step_update_and_product_are_timed_together():
    rows = measure(from_dict(TOWERS), batch_size=4, classes=24, words=30, side=64, rounds=3)
    check_rows(rows)
    figures = {(row.name, row.unit): row for row in rows}
    step = figures["step", "ms"].median
    # Four pairs in so many milliseconds.
    assert figures["step", "pairs a second"].median == pytest.approx(4 / step * 1000)
    assert figures["the optimizer's update", "ms"].ratio.to == "step"
    share = figures["step without its update", "billion multiply-adds a second"].ratio
    assert share.to == "float32 matrix product"
