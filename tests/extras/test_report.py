"""The report of `evaluate` in Chromium: wide and narrow, light and dark, from the disk alone.

Screenshots lie in `build/report` afterwards, for a person to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from pipelines import evaluate, prepare, train
from tests.extras.test_browser import SMALL_RUN

SECTIONS = 8
FIGURES = 4  # ranks, hubs, lengths, epochs: too few images for probabilities


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small run on drawn scenes."""
    root = tmp_path_factory.mktemp("report")
    data, run = root / "data", root / "run"
    sizes = ("--train-images", "64", "--val-images", "24", "--test-images", "24")
    assert prepare.main(["--source", "scenes", "--seed", "0", "--out", str(data), *sizes]) == 0
    options = (*SMALL_RUN, "--stage1.epochs", "6", "--stage1.validate_every", "1")
    assert train.main(["--preset", "scenes", "--data", str(data), "--run", str(run), *options]) == 0
    asked = ("--run", run, "--data", data, "--split", "test", "--report", root / "out")
    assert evaluate.main([str(word) for word in asked]) == 0
    return root / "out" / "report.html"


@contextmanager
def opened(
    start_browser: Callable[..., BrowserContext], report: Path, width: int, scheme: str
) -> Iterator[Page]:
    """Opens the page; whatever it asks of a host or of another file fails the block."""
    context = start_browser(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, wrong = context.new_page(), []
    page.on("request", lambda asked: wrong.append(asked.url))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(report.as_uri())
    yield page
    assert [url[:60] for url in wrong if url != report.as_uri() and url[:5] != "data:"] == []
    folder = Path("build/report")
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{width}-{scheme}.png", full_page=True)
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_all_of_itself(
    start_browser: Callable[..., BrowserContext], report: Path, width: int, scheme: str
):
    with opened(start_browser, report, width, scheme) as page:
        expect(page.locator("section h2")).to_have_count(SECTIONS)
        images = page.locator("img").evaluate_all(
            "all => Promise.all(all.map(i => i.decode().then(() => [i.naturalWidth, i.alt])))"
        )
        # Queries with what was found and meant, and the hubs, as well.
        assert len(images) > FIGURES + 6
        assert all(size > 0 and name for size, name in images)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        chart = page.locator("#figure-ranks img")
        assert chart.bounding_box()["width"] <= width
        # On dark paper the chart is another one.
        shown, light = chart.evaluate("i => [i.currentSrc, i.src]")
        assert (shown == light) == (scheme == "light")


def test_what_is_said_is_what_was_measured(
    start_browser: Callable[..., BrowserContext], report: Path
):
    with opened(start_browser, report, 1280, "light") as page:
        rows = page.locator("#recall table").first.locator("tr")
        expect(rows).to_have_count(3)
        lines = (report.parent / "ranks.csv").read_text().splitlines()[1:]
        first = page.locator("#recall table").first.locator("tr").nth(1).locator("td").nth(2)
        recall = next(float(line.split(",")[2]) for line in lines if line.split(",")[1] == "1")
        expect(first).to_have_text(f"{recall:.1f}")
        expect(page.locator("figure")).to_have_count(FIGURES)
        expect(page.locator(".miss").first.locator(".query")).to_be_visible()
        expect(page.locator("#more-epochs-or-more-pairs .verdict")).to_have_count(3)
        expect(page.locator("#probabilities img")).to_have_count(0)
