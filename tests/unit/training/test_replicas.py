"""N mirrored replicas train the model that one replica would, on logical CPU devices."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.unit.training.alike import assert_same_by_adamw, assert_same_history, assert_same_stage
from tests.unit.training.replicated import CASES, RUNS

# How many replicas, and what they do.
PARTS = [
    pytest.param(2, "sentinel", marks=pytest.mark.sentinel),
    pytest.param(2, "rest", marks=pytest.mark.full),
    pytest.param(2, "slow", marks=pytest.mark.slow),
    *(pytest.param(4, part, marks=pytest.mark.slow) for part in CASES),
]
TOLERANCE = 1e-5
# The least that is compared; zeros would be alike, too.
LEAST = 1e-3
# The BatchNorm layers behind it take away what it adds: its gradient is rounding errors.
NOTHING, ROUNDING = "text_embedding_bn/beta", 1e-6


pytestmark = [pytest.mark.process, pytest.mark.parametrize(("replicas", "part"), PARTS)]


@pytest.fixture(scope="module")
def replicated(
    scenes: Path, tmp_path_factory: pytest.TempPathFactory, run_program
) -> Callable[[int, str], Path]:
    """What `replicated` left on a number of replicas; one process for both tests."""

    @cache
    def run(replicas: int, part: str) -> Path:
        folder = tmp_path_factory.mktemp(f"replicas{replicas}")
        module, given = "tests.unit.training.replicated", (replicas, part, scenes, folder)
        answer = run_program(module, *given, CUDA_VISIBLE_DEVICES="-1")
        assert f"{replicas} replica(s) on CPU" in answer.stdout + answer.stderr
        return folder

    return run


def test_loss_and_gradients_are_those_of_one_replica(
    replicated: Callable[[int, str], Path], replicas: int, part: str
):
    found = json.loads((replicated(replicas, part) / "steps.json").read_text())
    assert tuple(found) == CASES[part]
    for case, step in found.items():
        one, several = step["losses"]
        assert one > 0.1
        assert several == pytest.approx(one, rel=TOLERANCE), case
        assert {"image_fc1/kernel", "text_embedding/embeddings"} <= step["gradients"].keys()
        assert (case == "paired") == ("image_conv1/kernel" in step["gradients"])
        assert_alike(step["gradients"], case)
        if case == "instance":
            # AdamW takes the weights as far.
            assert_alike(step["ways"], case)


def assert_alike(found: dict[str, tuple[float, float]], case: str) -> None:
    for path, (difference, largest) in found.items():
        if path == NOTHING:
            assert difference < ROUNDING and largest < ROUNDING
            continue
        assert largest > LEAST, (case, path)
        assert difference <= TOLERANCE * largest, (case, path, difference, largest)


# 48 images in batches of 8, two epochs: 12 steps. Dropout is on in towers and classifier.
def test_weights_slots_and_losses_after_twelve_steps_are_those_of_one_replica(
    replicated: Callable[[int, str], Path],
    one_replica: Callable[[str], Path],
    replicas: int,
    part: str,
):
    for name in RUNS[part]:
        expected, found = one_replica(name), replicated(replicas, part) / name
        if name.endswith("_adamw"):
            assert_same_by_adamw(found, expected)
        else:
            for stage in (1, 2) if name == "both" else (1,):
                assert_same_stage(found, expected, stage)
        assert_same_history(found, expected)
