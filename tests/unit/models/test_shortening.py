"""A model that gives the first numbers of another's embeddings."""

from __future__ import annotations

import numpy as np

from tests.unit.export.tiny import SIZE, tiny_model
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.shortening import shortened_model


def test_it_gives_the_first_numbers_of_unit_length():
    model, draw = tiny_model(), np.random.default_rng(0)
    inputs = {
        "image": draw.uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32),
        "text": draw.integers(1, 9, (3, 6)),
    }
    short = shortened_model(model, 5)
    for modality, rows in inputs.items():
        whole = getattr(model, f"{modality}_encoder")(rows, training=False).numpy()[:, :5]
        expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
        encoder = getattr(short, f"{modality}_encoder")
        np.testing.assert_allclose(encoder(rows, training=False), expected, atol=1e-5)
        # As it is exported.
        np.testing.assert_allclose(folded(encoder)(rows, training=False), expected, atol=1e-5)
