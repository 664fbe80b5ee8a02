"""Word-order accuracy, and its parts by what was changed."""

from __future__ import annotations

import numpy as np
import pytest

from tf_dpce.evaluation.word_order import word_order_accuracy, word_order_by_kind

# One image, and captions at these cosines to it; so are the false captions.
TRUE = [0.9, 0.5, 0.7, 0.2, 0.6]
FALSE = [0.1, 0.5, 0.8, 0.1, 0.3]
KINDS = ["size", "size", "relation", "size", "relation"]


def at(cosines: list[float]) -> np.ndarray:
    return np.stack([cosines, np.sqrt(1 - np.square(cosines))], axis=1)


def test_each_kind_has_its_own_share_and_number():
    images = np.tile([1.0, 0.0], (5, 1))
    found = word_order_by_kind(images, at(TRUE), at(FALSE), KINDS)
    # Sizes: 0.9 > 0.1 and 0.2 > 0.1 count, 0.5 = 0.5 does not. Relations: 0.7 < 0.8, 0.6 > 0.3.
    assert found == {"relation": (50.0, 2), "size": (pytest.approx(200 / 3), 3)}
    assert word_order_accuracy(images, at(TRUE), at(FALSE)) == pytest.approx(60.0)
