"""One step on several replicas: the loss and the gradients of one, whatever the loss is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

COUNTS = [2, pytest.param(4, marks=pytest.mark.slow)]
CASES = ["instance", "sampled", "contrastive", "batch", "given", "mined"]
TOLERANCE = 1e-5
# Of what is compared; zeros would be alike, too.
LEAST = 1e-3
# The BatchNorm layers behind it take away what it adds: its gradient is rounding errors.
NOTHING, ROUNDING = "text_embedding_bn/beta", 1e-6


@pytest.fixture(scope="module")
def steps(project_root: Path) -> Callable[[int], dict]:
    """What `gradients` found on a number of replicas."""

    @cache
    def run(replicas: int) -> dict:
        answer = subprocess.run(
            [sys.executable, "-m", "tests.unit.training.gradients", str(replicas)],
            cwd=project_root,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert answer.returncode == 0, answer.stderr[-3000:]
        return json.loads(answer.stdout)

    return run


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("replicas", COUNTS)
def test_the_loss_is_that_of_one_replica(steps: Callable[[int], dict], replicas: int, case: str):
    one, several = steps(replicas)[case]["losses"]
    assert one > 0.1
    assert several == pytest.approx(one, rel=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("replicas", COUNTS)
def test_gradients_of_all_variables_are_those_of_one_replica(
    steps: Callable[[int], dict], replicas: int, case: str
):
    found = steps(replicas)[case]["gradients"]
    assert {"image_fc1/kernel", "text_embedding/embeddings"} <= found.keys()
    assert (case == "given") == ("image_conv1/kernel" in found)
    assert_alike(found)


@pytest.mark.parametrize("replicas", COUNTS)
def test_adamw_takes_the_weights_as_far(steps: Callable[[int], dict], replicas: int):
    assert_alike(steps(replicas)["instance"]["ways"])


def assert_alike(found: dict[str, tuple[float, float]]) -> None:
    for path, (difference, largest) in found.items():
        if path == NOTHING:
            assert difference < ROUNDING and largest < ROUNDING
            continue
        assert largest > LEAST, path
        assert difference <= TOLERANCE * largest, (path, difference, largest)
