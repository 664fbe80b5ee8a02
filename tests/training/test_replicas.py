"""N mirrored replicas train the model that one would: real runs on logical CPU devices."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.training.kills import arrays
from tests.training.tiny import EPOCHS

STAGES = (("both", 1), ("both", 2), ("hardest", 1))


COUNTS = [2, pytest.param(4, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def runs(scenes: Path, tmp_path_factory, project_root: Path) -> Callable[[int], Path]:
    """The same two runs on any number of replicas."""

    @cache
    def run(replicas: int) -> Path:
        folder = tmp_path_factory.mktemp(f"replicas{replicas}")
        command = [sys.executable, "-m", "tests.training.replicated", replicas, scenes, folder]
        answer = subprocess.run(
            list(map(str, command)),
            cwd=project_root,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert answer.returncode == 0, answer.stderr[-3000:]
        assert f"{replicas} replica(s) on CPU" in answer.stdout + answer.stderr
        return folder

    return run


@pytest.mark.parametrize(("run", "stage"), STAGES)
@pytest.mark.parametrize("replicas", COUNTS)
def test_weights_and_momenta_after_twelve_steps_are_those_of_one_replica(
    runs: Callable[[int], Path], replicas: int, run: str, stage: int
):
    # 48 pictures in batches of 8, two epochs: 12 steps. Dropout is on in towers and classifier.
    name = f"{run}/checkpoints/stage{stage}-last.npz"
    one, several = arrays(runs(1) / name), arrays(runs(replicas) / name)
    assert one.keys() == several.keys()
    moved = 0
    for key, value in one.items():
        if key.endswith(("/total", "/count")):
            continue  # Each replica counts its own steps; the means are compared below.
        if value.dtype == np.float32:
            np.testing.assert_allclose(several[key], value, atol=1e-5, rtol=1e-5, err_msg=key)
            moved += value.size
        elif key != "progress":
            np.testing.assert_array_equal(several[key], value, err_msg=key)
    assert moved > 1000


@pytest.mark.parametrize(("run", "stage"), STAGES)
@pytest.mark.parametrize("replicas", COUNTS)
def test_logged_losses_are_those_of_one_replica(
    runs: Callable[[int], Path], replicas: int, run: str, stage: int
):
    def losses(folder: Path) -> list[list[float]]:
        with (folder / run / "history.csv").open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["stage"] == str(stage)]
        names = ("loss", "image_logits_loss", "text_logits_loss", "pair_loss")
        return [[float(row[name] or 0) for name in names] for row in rows]

    one = losses(runs(1))
    assert len(one) == EPOCHS and all(row[0] > 0 and row[3] > 0 for row in one)
    np.testing.assert_allclose(losses(runs(replicas)), one, rtol=1e-5)
