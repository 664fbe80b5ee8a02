"""Runs that several tests of training compare with; nobody writes to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def one_replica(scenes: Path, build_once: Callable[..., Path]) -> Path:
    """The runs of `replicated.RUNS` on one replica, in a folder for each."""
    from tests.unit.training.replicated import RUNS
    from tests.unit.training.tiny import run_tiny

    def train(folder: Path) -> None:
        for name, options in RUNS.items():
            assert run_tiny(scenes, folder / name, **options) == 0

    return build_once("one_replica", train)
