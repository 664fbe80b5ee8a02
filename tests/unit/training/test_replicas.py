"""N mirrored replicas train the model that one replica would, on logical CPU devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.unit.training.alike import assert_same_by_adamw, assert_same_history, assert_same_stage
from tests.unit.training.replicated import RUNS

COUNTS = [2, pytest.param(4, marks=pytest.mark.slow)]
CASES = ["instance", "sampled", "contrastive", "batch", "paired", "mined"]
TOLERANCE = 1e-5
# The least that is compared; zeros would be alike, too.
LEAST = 1e-3
# The BatchNorm layers behind it take away what it adds: its gradient is rounding errors.
NOTHING, ROUNDING = "text_embedding_bn/beta", 1e-6


@pytest.fixture(scope="module")
def replicated(
    scenes: Path, tmp_path_factory: pytest.TempPathFactory, project_root: Path
) -> Callable[[int], Path]:
    """What `replicated` left on a number of replicas; one process for all tests."""

    @cache
    def run(replicas: int) -> Path:
        folder = tmp_path_factory.mktemp(f"replicas{replicas}")
        command = [sys.executable, "-m", "tests.unit.training.replicated", replicas, scenes, folder]
        answer = subprocess.run(
            list(map(str, command)),
            cwd=project_root,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert answer.returncode == 0, answer.stderr[-3000:]
        assert f"{replicas} replica(s) on CPU" in answer.stdout + answer.stderr
        return folder

    return run


def steps(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "steps.json").read_text())


@pytest.mark.parametrize("replicas", COUNTS)
@pytest.mark.process
@pytest.mark.sentinel
def test_loss_and_gradients_are_those_of_one_replica(
    replicated: Callable[[int], Path], replicas: int
):
    found = steps(replicated(replicas))
    assert list(found) == CASES
    for case, step in found.items():
        one, several = step["losses"]
        assert one > 0.1
        assert several == pytest.approx(one, rel=TOLERANCE), case
        assert {"image_fc1/kernel", "text_embedding/embeddings"} <= step["gradients"].keys()
        assert (case == "paired") == ("image_conv1/kernel" in step["gradients"])
        assert_alike(step["gradients"], case)
    # AdamW takes the weights as far.
    assert_alike(found["instance"]["ways"], "instance")


def assert_alike(found: dict[str, tuple[float, float]], case: str) -> None:
    for path, (difference, largest) in found.items():
        if path == NOTHING:
            assert difference < ROUNDING and largest < ROUNDING
            continue
        assert largest > LEAST, (case, path)
        assert difference <= TOLERANCE * largest, (case, path, difference, largest)


# 48 images in batches of 8, two epochs: 12 steps. Dropout is on in towers and classifier.
@pytest.mark.parametrize("replicas", COUNTS)
@pytest.mark.process
@pytest.mark.sentinel
def test_weights_slots_and_losses_after_twelve_steps_are_those_of_one_replica(
    replicated: Callable[[int], Path], one_replica: Path, replicas: int
):
    folder = replicated(replicas)
    for stage in (1, 2):
        assert_same_stage(folder / "both", one_replica / "both", stage)
    assert_same_by_adamw(folder / "hardest_adamw", one_replica / "hardest_adamw")
    for name in RUNS:
        assert_same_history(folder / name, one_replica / name)
