"""The tests in this folder need Chromium, Ray or Milvus: `make test-extras` alone runs them.

Without its mark nothing here is even imported, because the packages of the extras may be missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if config.option.markexpr == "extras" else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker("extras")
