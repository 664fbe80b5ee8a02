"""Prepared scenes, and one whole run on them, for all tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenes import prepare_scenes
from tests.unit.training.tiny import run_tiny


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """A prepared folder; runs leave their feature caches in it."""
    folder = tmp_path_factory.mktemp("scenes")
    prepare_scenes(folder)
    return folder


@pytest.fixture(scope="session")
def finished(scenes: Path, tmp_path_factory) -> Path:
    """A run of both stages that nobody disturbed; nobody writes to it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert run_tiny(scenes, folder) == 0
    return folder
