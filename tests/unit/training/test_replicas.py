"""N mirrored replicas train the model that one would: real runs on logical CPU devices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.unit.training.alike import assert_same_by_adamw, assert_same_history, assert_same_stage

# Both losses, both optimizers and both stages on two replicas; `make slow` has the rest.
QUICK = ("both", "hardest_adamw")
RUNS = (*QUICK, "hardest", "both_adamw")


def on_two_and_four(*cases: tuple) -> list:
    """Marks the replicas and the run, with what follows it, that only `make slow` takes."""
    return [
        pytest.param(
            replicas,
            *case,
            marks=[] if replicas == 2 and case[0] in QUICK else [pytest.mark.slow],
        )
        for replicas in (2, 4)
        for case in cases
    ]


@pytest.fixture(scope="module")
def runs(scenes: Path, tmp_path_factory, project_root: Path) -> Callable[[int, str], Path]:
    """The same runs on any number of replicas."""

    @cache
    def trained(replicas: int, names: tuple[str, ...]) -> Path:
        folder = tmp_path_factory.mktemp(f"replicas{replicas}")
        command = [sys.executable, "-m", "tests.unit.training.replicated", replicas, scenes, folder]
        answer = subprocess.run(
            list(map(str, [*command, *names])),
            cwd=project_root,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert answer.returncode == 0, answer.stderr[-3000:]
        assert f"{replicas} replica(s) on CPU" in answer.stdout + answer.stderr
        return folder

    def run(replicas: int, name: str) -> Path:
        names = QUICK if name in QUICK else tuple(n for n in RUNS if n not in QUICK)
        return trained(replicas, names) / name

    return run


# 48 images in batches of 8, two epochs: 12 steps. Dropout is on in towers and classifier.
@pytest.mark.parametrize(
    ("replicas", "run", "stage"), on_two_and_four(("both", 1), ("both", 2), ("hardest", 1))
)
def test_weights_and_momenta_after_twelve_steps_are_those_of_one_replica(
    runs: Callable[[int, str], Path], replicas: int, run: str, stage: int
):
    assert_same_stage(runs(replicas, run), runs(1, run), stage)


@pytest.mark.parametrize(("replicas", "run"), on_two_and_four(("both_adamw",), ("hardest_adamw",)))
def test_weights_and_slots_after_twelve_steps_of_adamw_are_those_of_one_replica(
    runs: Callable[[int, str], Path], replicas: int, run: str
):
    assert_same_by_adamw(runs(replicas, run), runs(1, run))


@pytest.mark.parametrize(("replicas", "run"), on_two_and_four(*((run,) for run in RUNS)))
def test_losses_and_validations_are_those_of_one_replica(
    runs: Callable[[int, str], Path], replicas: int, run: str
):
    assert_same_history(runs(replicas, run), runs(1, run))
