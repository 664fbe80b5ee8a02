"""The site of the documentation builds without a warning, is whole, and asks no other host."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

import tf_dpce
from tf_dpce import evaluation, losses, serving
from tf_dpce.config import Config

# What a browser fetches by itself; a link that a person follows is an `href` of an `a`.
FETCHED = r"""<(?!a\b)[^>]*\s(?:src|href|srcset|data|poster)=["']?((?:https?:)?//[^"'\s>]+)"""


@pytest.fixture(scope="module")
def site(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    # A warning is an error: a broken link or anchor, a page that no menu shows. With `--quiet`
    # MkDocs neither shows nor counts them.
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*build, "--site-dir", str(folder)], cwd=project_root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def keys(section: type = Config, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yields each key of the configuration, as the page names it, with its section's docstring."""
    for item in dataclasses.fields(section):
        inner = (*path, re.sub(r"stage\d", "stageN", item.name))
        if dataclasses.is_dataclass(item.default_factory):
            yield from keys(item.default_factory, inner)
        else:
            yield ".".join(inner), section.__doc__ or ""


def test_every_key_is_on_the_page_with_its_meaning(site: Path):
    page = (site / "configuration.html").read_text()
    rows = dict(
        re.findall(r"<td><code>([\w.]+)</code></td>\s*(?:<td>.*?</td>\s*){2}(.*?)</tr>", page, re.S)
    )
    assert list(rows) == list(dict(keys())) and len(rows) > 50
    for key, meaning in rows.items():
        assert len(re.sub(r"<.*?>", "", meaning).strip()) > 15, key


def test_every_public_name_is_in_the_reference(site: Path):
    pages = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    names = {*tf_dpce.__all__} - {"evaluation", "losses"}
    wanted = {f"tf_dpce.{name}" for name in names}
    for module in (evaluation, losses, serving):
        wanted |= {f"{module.__name__}.{name}" for name in module.__all__}
    assert wanted - set(re.findall(r'id="(tf_dpce[\w.]+)"', pages)) == set()


def test_no_page_names_a_file_of_another_host(site: Path):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for path in [*pages, *site.rglob("*.css")]:
        fetched = re.findall(FETCHED, path.read_text())
        fetched += re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", path.read_text())
        assert fetched == [], path


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site behind a server of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (400, "dark")])
def test_a_reader_searches_and_nothing_leaves_the_machine(
    start_browser: Callable[..., BrowserContext],
    address: str,
    project_root: Path,
    width: int,
    scheme: str,
):
    with start_browser(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page, wrong = context.pages[0], []
        page.on("request", lambda r: r.url.startswith(address) or wrong.append(r.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address, wait_until="networkidle")
        expect(page.locator("body")).to_have_attribute(
            "data-md-color-scheme", {"light": "default", "dark": "slate"}[scheme]
        )
        assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out"
        folder = project_root / "build" / "site-shown"
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{scheme}.png")
        if width < 600:
            page.locator("label[for=__search]").first.click()
        page.get_by_role("textbox", name="Search").press_sequentially("querybank normalisation")
        hit = page.locator(".md-search-result__link").first
        hit.click()
        expect(page.locator("article h1")).to_be_visible()
        assert page.url != address
        page.wait_for_load_state("networkidle")
        assert wrong == []
