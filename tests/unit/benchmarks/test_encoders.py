"""Encoders beside other runtimes: the same answers, and a figure for each."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks.encoders import (
    ENCODER,
    EXPORT,
    OTHERS,
    PRODUCTS,
    UNFOLDED,
    measure,
    runtimes,
)
from benchmarks.material import random_model
from tests.unit.benchmarks.rows import check_rows
from tests.unit.benchmarks.test_mining import TOWERS
from tf_dpce.config import from_dict


def test_every_runtime_is_timed_at_every_size():
    steps = []
    rows = measure(
        from_dict(TOWERS), lambda *done: steps.append(done), words=30, batches=(1, 3), rounds=2
    )
    check_rows(rows)
    names = [row.name for row in rows]
    for kind in ("images", "sentences"):
        for batch in (1, 3):
            for arm in (EXPORT, ENCODER, UNFOLDED, PRODUCTS, OTHERS):
                assert f"{kind}, {batch} at a time, {arm}" in names
    # Two rounds and the one before them, for two encoders at two sizes.
    assert steps == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize("tower", ["image_encoder", "text_encoder"])
def test_all_runtimes_give_the_same(tower: str):
    config = from_dict(TOWERS)
    model = random_model(config, 30, 2)
    encoder = getattr(model, tower)
    shape = (3, *encoder.input_shape[1:])
    rows = np.random.default_rng(0).integers(0, 30, shape).astype(encoder.input.dtype)
    rows[:, -3:] = 0
    text_tower = model.text_tower if tower == "text_encoder" else None
    found = {name: run(rows) for name, run in runtimes(encoder, text_tower).items()}
    assert (len(found) > 2) == any(map(find_spec, ("openvino", "onnxruntime")))
    for vectors in found.values():
        np.testing.assert_allclose(vectors, found[UNFOLDED], atol=1e-5)
