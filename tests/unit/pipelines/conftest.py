"""A tiny run for the verbs that read one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run to write to."""
    return shutil.copytree(tiny_run, tmp_path / "drawn")
