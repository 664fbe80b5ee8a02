"""Prepared scenes for the tests that read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenes import prepare_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """A prepared folder; nobody writes to it."""
    folder = tmp_path_factory.mktemp("scenes")
    prepare_scenes(folder)
    return folder
