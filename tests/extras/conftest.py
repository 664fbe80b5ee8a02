"""The tests in this folder need what few users install: only `make test-extras` runs them.

Without its mark nothing here is even imported, because the packages of the extras may be missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

FOLDER = Path(__file__).parent
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if config.option.markexpr == "extras" else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker("extras")


@pytest.fixture(scope="module")
def start_browser(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., BrowserContext]]:
    """Starts Chromium with an empty profile, further flags and options of Playwright."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:

        def start(flags: Sequence[str] = (), **options: Any) -> BrowserContext:
            return playwright.chromium.launch_persistent_context(
                tmp_path_factory.mktemp("profile"),
                executable_path=chromium,
                headless=True,
                args=[*FLAGS, *flags],
                **options,
            )

        yield start
