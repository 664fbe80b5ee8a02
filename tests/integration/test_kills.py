"""A run that is killed twenty times ends, to the last bit, as one that nobody disturbed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.scenes import prepare_scenes
from tests.training.kills import differences, kill_often, start
from tests.training.tiny import STEPS

# Negatives are mined from here on, so that stage 2 has layers of its own; epochs to be killed in.
OPTIONS = {
    "stage1__epochs": 4,
    "stage2__epochs": 4,
    "stage2__loss__negatives": "mined",
    "stage2__loss__candidates": 16,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replicas", "sampled", "kills", "metrics_rtol"),
    [
        (1, 0, (10, 10), 0.0),
        (1, 8, (3, 3), 0.0),
        # Restored sums are spread over replicas, and added up again in another order.
        (2, 0, (2, 2), 1e-6),
    ],
)
def test_kills_at_random_moments_change_nothing(
    tmp_path: Path, replicas: int, sampled: int, kills: tuple[int, int], metrics_rtol: float
):
    data, whole, killed = (tmp_path / name for name in ("data", "whole", "killed"))
    prepare_scenes(data)
    options = OPTIONS | {"replicas": replicas, "model__sampled_negatives": sampled}
    process = start(data, whole, **options)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    torn = kill_often(data, killed, kills, 3 * STEPS, random.Random(7), **options)
    assert torn, "some kills came while a checkpoint was being written"
    assert differences(whole, killed, metrics_rtol) == []
