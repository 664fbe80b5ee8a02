"""A step against the machine's matrix product, and the operations that are counted."""

from __future__ import annotations

import pytest

from benchmarks.step import measure, step_multiply_adds
from tests.unit.benchmarks.rows import check_rows
from tests.unit.benchmarks.test_mining import TOWERS
from tf_dpce.config import from_dict
from tf_dpce.models import text_tower
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.image_tower import image_head

# Of a pair. A group of one block on 6 positions of 4 numbers, 8 wide, its middle 4 wide:
# 6 * (4*4 + 2*4*4 + 4*8 + 4*8) = 672, and a dense layer 8*8; words are trained before all of them.
TEXT = 3 * (672 + 64)


def test_multiply_adds_are_those_of_the_layers():
    # No gradient goes to the features.
    for head_dim, head in ((0, 2 * 5 * 8), (7, 2 * 5 * 7 + 3 * 7 * 8)):
        images = image_head(input_dim=5, output_dim=8, head_dim=head_dim)
        texts = text_tower(40, max_length=6, word_dim=4, blocks=(1,), output_dim=8, widths=(8,))
        network = DualPath(images, texts, num_instances=200)
        for losses, scored in (
            ({"pair"}, 0),
            ({"text_logits", "pair"}, 1),
            ({"image_logits", "text_logits"}, 2),
        ):
            assert step_multiply_adds(network, losses) == head + TEXT + scored * 3 * 8 * 200


@pytest.mark.full
def test_step_update_and_product_are_timed_together():
    rows = measure(from_dict(TOWERS), batch_size=4, classes=24, words=30, side=64, rounds=2)
    # Of towers so small, a busy machine may find the update longer than the step around it.
    check_rows([row for row in rows if row.name != "step without its update"])
    assert [(row.name, row.ratio and row.ratio.to) for row in rows] == [
        ("step", None),
        ("step", None),
        ("step on one batch in memory", "step"),
        ("the optimizer's update", "step"),
        ("multiply-adds of a step", None),
        ("float32 matrix product", None),
        ("step without its update", "float32 matrix product"),
        ("memory of the process, peak", None),
    ]
