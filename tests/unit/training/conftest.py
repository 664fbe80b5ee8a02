"""Runs that several tests of training compare with; nobody writes to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def one_replica(scenes: Path, build_once: Callable[..., Path]) -> Callable[[str], Path]:
    """Returns `run(name)`: a run of `replicated.RUNS` on one replica."""
    from tests.unit.training.replicated import RUNS
    from tests.unit.training.tiny import run_tiny

    options = {name: run for part in RUNS.values() for name, run in part.items()}

    def run(name: str) -> Path:
        def train(folder: Path) -> None:
            assert run_tiny(scenes, folder, **options[name]) == 0

        return build_once(f"one_replica_{name}", train)

    return run
