"""Encoders beside other runtimes: the same answers, and a figure for each."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks.encoders import ENCODER, EXPORT, UNFOLDED, measure, runtimes
from benchmarks.material import random_model
from tests.unit.benchmarks.rows import check_rows
from tests.unit.benchmarks.test_mining import TOWERS
from tf_dpce.config import from_dict


@pytest.mark.full
def test_every_runtime_is_timed_at_every_size():
    rows = measure(from_dict(TOWERS), words=30, batches=(1, 3), rounds=2)
    check_rows(rows)
    names = [row.name for row in rows]
    for kind in ("images", "sentences"):
        for batch in (1, 3):
            for call in (EXPORT, ENCODER, UNFOLDED):
                assert f"{kind}, {batch} at a time, {call}" in names


@pytest.mark.full
def test_all_runtimes_give_the_same():
    model = random_model(from_dict(TOWERS), 30, 2)
    for encoder, tower in ((model.image_encoder, None), (model.text_encoder, model.text_tower)):
        shape = (3, *encoder.input_shape[1:])
        rows = np.random.default_rng(0).integers(0, 30, shape).astype(encoder.input.dtype)
        rows[:, -3:] = 0
        found = {name: run(rows) for name, run in runtimes(encoder, tower).items()}
        assert (len(found) > 2) == any(map(find_spec, ("openvino", "onnxruntime")))
        for embeddings in found.values():
            np.testing.assert_allclose(embeddings, found[UNFOLDED], atol=1e-5)
