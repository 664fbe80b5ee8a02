"""A model that gives fewer numbers of another's embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.export.tiny import SIZE, WIDTH, tiny_model
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.shortening import shortened_model


@pytest.mark.parametrize(("turned", "dimension"), [(False, 5), (True, 5), (True, WIDTH)])
def test_it_gives_the_first_numbers_of_unit_length(turned: bool, dimension: int):
    model, draw = tiny_model(), np.random.default_rng(0)
    # The first factor of a matrix of random numbers is orthogonal.
    axes = np.linalg.qr(draw.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
    inputs = {
        "image": draw.uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32),
        "text": draw.integers(1, 9, (3, 6)),
    }
    short = shortened_model(model, dimension, axes if turned else None)
    for modality, rows in inputs.items():
        whole = getattr(model, f"{modality}_encoder")(rows, training=False).numpy()
        whole = (whole @ axes if turned else whole)[:, :dimension]
        expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
        encoder = getattr(short, f"{modality}_encoder")
        np.testing.assert_allclose(encoder(rows, training=False), expected, atol=1e-5)
        # As it is exported.
        np.testing.assert_allclose(folded(encoder)(rows, training=False), expected, atol=1e-5)
