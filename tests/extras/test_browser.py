"""The page in Debian's Chromium, over a small model that was trained on drawn scenes.

Screenshots lie in `build/page` afterwards, for a person to look at.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from pipelines import embed, export, index, prepare, train
from tests.samples import image
from tests.unit.serving.servers import free_port
from tf_dpce.datasets.shapes.scene import make_scene

# Training scenes, which the model knows by heart: who asks with a caption finds its image.
COUNT = 64
VAL = 200  # as many as a calibration of probabilities needs
FIRST = VAL + 8  # the number of the first training scene, behind those of validation and test
EVIL = "<img src=x onerror=alert(1)>{{value}}${alert(2)}.png"
SMALL_RUN = (
    *("--stage1.epochs", "40", "--stage1.batch_size", "32", "--stage1.validate_every", "40"),
    *("--image.head_dim", "128", "--text.word_dim", "32", "--text.widths", "[64,64]"),
    *("--model.output_dim", "64", "--model.dropout", "0.0"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `models/scenes`, `images` in two folders, and `index`."""
    root = tmp_path_factory.mktemp("browser")
    sizes = ("--train-images", str(COUNT), "--val-images", str(VAL), "--test-images", "8")
    data = root / "data"
    run_verb(prepare, "--source", "scenes", "--seed", 0, "--out", data, *sizes)
    run_verb(train, "--preset", "scenes", "--data", data, "--run", root / "run", *SMALL_RUN)
    exported = ("--to", root / "models" / "scenes", "--data", data)
    run_verb(export, "--run", root / "run", *exported)
    for number in range(FIRST, FIRST + COUNT):
        path = image_path(root, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / "scenes" / f"{number:06d}.png", path)
    (root / "images" / EVIL).write_bytes(image("PNG", size=(48, 48)))
    model = ("--model", root / "models" / "scenes")
    run_verb(embed, *model, "--images", root / "images", "--out", root / "vectors")
    run_verb(index, "--embeddings", root / "vectors", "--out", root / "index")
    return root


def run_verb(verb: Any, *options: object) -> None:
    assert verb.main([str(option) for option in options]) == 0


def image_path(root: Path, number: int) -> Path:
    return root / "images" / ("north" if number % 2 else "south") / f"{number:06d}.png"


def image_id(number: int) -> str:
    return f"{'north' if number % 2 else 'south'}/{number:06d}.png"


def caption(number: int) -> str:
    return make_scene(0, number).captions[0]


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[str, list[object]]]:
    """A proxy through which a process would have to go out, and the connections that it got."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            try:
                while True:
                    connection, _ = listening.accept()
                    came.append(connection.recv(200))
                    connection.close()
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", came
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def address(root: Path, outside: tuple[str, list[object]], project_root: Path) -> Iterator[str]:
    """The page as the verb `web` serves it, in a process of its own."""
    port, (proxy, came) = free_port(), outside
    model = ("--model", str(root / "models" / "scenes"))
    options = ("--index", str(root / "index"), *model, "--port", str(port))
    variables = {f"{name}_PROXY": proxy for name in ("HTTP", "HTTPS", "ALL")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.web", *options],
        cwd=project_root,
        env={**os.environ, **variables, "XDG_CACHE_HOME": str(root / "cache")},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.split()[-1] == f"http://127.0.0.1:{port}"
            yield line.split()[-1]
            assert process.poll() is None
        finally:
            process.terminate()
    assert process.returncode == 0
    assert came == [], "nothing leaves the machine"


@pytest.fixture(scope="module")
def browser(start_browser: Callable[..., BrowserContext]) -> Iterator[BrowserContext]:
    context = start_browser(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def page(browser: BrowserContext, address: str) -> Iterator[Page]:
    """The page, opened."""
    page = browser.new_page()
    with opened(page, address):
        yield page
    page.close()


@contextmanager
def opened(page: Page, address: str, link: str = "") -> Iterator[None]:
    """Opens the page; a request to another host, a dialog or an error in the block fails it."""
    wrong: list[str] = []

    def asked(url: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            wrong.append(url)

    page.on("request", lambda request: asked(request.url))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address + "/" + link)
    expect(page.locator("#answer .answer")).to_be_visible(timeout=30_000)
    yield
    assert wrong == []


def box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Search the images")


def ask(page: Page, query: str) -> None:
    with changed(page):
        box(page).fill(query)
        box(page).press("Enter")


class changed:
    """Waits at its end until another answer is shown than at its beginning."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def __enter__(self) -> None:
        self._before = self._token()

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            now = self._page.locator(f"#answer .answer:not([data-answer='{self._before}'])")
            now.wait_for(timeout=30_000)

    def _token(self) -> str | None:
        return self._page.locator("#answer .answer").get_attribute("data-answer")


def shown(page: Page) -> list[str]:
    """The ids of the hits, in order."""
    links = page.locator("#answer a.image").evaluate_all("all => all.map(a => a.href)")
    return [parse_qs(urlsplit(link).query)["id"][0] for link in links]


def folders(page: Page) -> set[str]:
    return {each.split("/")[0] for each in shown(page)}


def percents(page: Page) -> list[int]:
    """The probabilities of the hits, in the order of the hits, which is that of their cosines."""
    return [int(text.removesuffix(" %")) for text in page.locator(".percent").all_inner_texts()]


def follow(page: Page, link: str) -> None:
    with changed(page):
        page.get_by_role("link", name=link).click()


def fill_filter(page: Page, label: str, value: str) -> None:
    if not page.get_by_label("Condition").is_visible():
        page.get_by_role("button", name="Filters").click()
        # Gradio makes the fields only now, and sets their values once more a moment later.
        page.wait_for_timeout(500)
    page.get_by_label(label).fill(value)


def filter_by(page: Page, label: str, value: str) -> None:
    fill_filter(page, label, value)
    with changed(page):
        page.keyboard.press("Enter")


# === What is found ===


def test_a_sentence_finds_its_image_first(page: Page):
    expect(box(page)).to_be_focused()
    for number in (FIRST, FIRST + 1, FIRST + 2):
        page.keyboard.press("Control+a")
        with changed(page):
            page.keyboard.type(caption(number))
            page.keyboard.press("Enter")
        assert shown(page)[0] == image_id(number)
    first = page.locator("#answer img").first
    page.wait_for_function(
        "image => image.complete && image.naturalWidth > 0", arg=first.element_handle()
    )
    expect(page.locator(".hit .name").first).to_have_text(f"{FIRST + 2:06d}.png")


def test_a_dropped_image_finds_itself_and_words_combine_with_it(page: Page, root: Path):
    content = base64.b64encode(image_path(root, FIRST + 3).read_bytes()).decode()
    transfer = page.evaluate_handle(
        """content => {
            const bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "mine.png", { type: "image/png" }));
            return transfer;
        }""",
        content,
    )
    with changed(page):
        page.dispatch_event("#answer", "drop", {"dataTransfer": transfer})
    assert shown(page)[0] == image_id(FIRST + 3)
    expect(page.get_by_alt_text("the image that is searched for")).to_be_visible()
    alone = shown(page)
    ask(page, caption(FIRST + 20))
    assert "image=" in page.url and "q=" in page.url
    assert {image_id(FIRST + 3), image_id(FIRST + 20)} <= set(shown(page)[:5])
    assert shown(page) != alone
    follow(page, "Remove it")
    assert "image=" not in page.url and shown(page)[0] == image_id(FIRST + 20)


def test_a_damaged_file_gives_a_message_and_the_hits_stay(page: Page, tmp_path: Path, root: Path):
    ask(page, caption(FIRST))
    before = shown(page)
    cut = image_path(root, FIRST).read_bytes()[:500]
    for name, contents in (("cut.png", cut), ("page.html", b"<html>"), ("empty.jpg", b"")):
        (tmp_path / name).write_bytes(contents)
        page.get_by_label("Search with an image").set_input_files(tmp_path / name)
        expect(page.locator(".drop-state")).to_contain_text("cannot be used", timeout=15_000)
        assert shown(page) == before
    with changed(page):
        page.get_by_label("Search with an image").set_input_files(image_path(root, FIRST + 1))
    expect(page.locator(".drop-state")).to_be_empty()


def test_more_like_this_begins_a_search_with_the_image(page: Page):
    ask(page, caption(FIRST))
    follow(page, f"More like {FIRST:06d}.png")
    assert image_id(FIRST) not in shown(page) and len(shown(page)) == 24
    assert box(page).input_value() == ""
    expect(page.locator(".asked")).to_contain_text(image_id(FIRST))


def test_filters_leave_what_passes_them(page: Page):
    ask(page, caption(FIRST))
    assert {"north", "south"} <= folders(page)
    fill_filter(page, "Folder", "north")
    with changed(page):
        page.get_by_role("button", name="Search", exact=True).click()
    assert folders(page) == {"north"}
    fill_filter(page, "Folder", "")
    filter_by(page, "Condition", f"name in ('{FIRST:06d}.png', '{FIRST + 1:06d}.png')")
    assert set(shown(page)) == {image_id(FIRST), image_id(FIRST + 1)}
    filter_by(page, "Condition", "width >")
    expect(page.get_by_role("alert")).to_contain_text("filter")
    filter_by(page, "Condition", "width > 9999")
    expect(page.locator("#answer")).to_contain_text("No image passes the filters")
    follow(page, "Search without them")
    assert shown(page)[0] == image_id(FIRST) and page.get_by_label("Condition").input_value() == ""


def test_images_below_a_probability_are_left_out(page: Page):
    ask(page, caption(FIRST))
    before = percents(page)
    assert len(before) == 24
    # No image is certain, not even the one that is meant.
    fill_filter(page, "number input for Least probability, %", "100")
    with changed(page):
        page.get_by_role("button", name="Search", exact=True).click()
    nothing = f"Nothing like that here: the highest probability is {max(before)} %"
    expect(page.locator("#answer")).to_contain_text(nothing)
    assert percents(page) == []
    follow(page, "Search without them")
    assert percents(page) == before


def test_a_folder_below_an_image_is_a_filter(page: Page):
    ask(page, caption(FIRST + 1))
    with changed(page):
        page.locator(".hit .in-folder").first.click()
    assert folders(page) == {"north"}
    assert page.get_by_label("Folder").input_value() == "north"


def test_pages_follow_one_another_and_the_way_back_works(page: Page):
    ask(page, caption(FIRST))
    pages = [shown(page)]
    for _ in range(2):
        follow(page, "Further images")
        pages.append(shown(page))
    assert [len(each) for each in pages] == [24, 24, COUNT + 1 - 48]
    assert len(set().union(*pages)) == COUNT + 1
    expect(page.get_by_role("link", name="Further images")).to_have_count(0)
    with changed(page):
        page.go_back()
    assert shown(page) == pages[1]
    follow(page, "Better ones")
    assert shown(page) == pages[0] and box(page).input_value() == caption(FIRST)


def test_a_link_repeats_a_search_for_somebody_else(
    page: Page, address: str, start_browser: Callable[..., BrowserContext]
):
    ask(page, f'"{caption(FIRST)}" - "{caption(FIRST + 1)}"')
    filter_by(page, "Folder", "south")
    link, found = urlsplit(page.url).query, shown(page)
    other = start_browser()
    again = other.pages[0]
    with opened(again, address, f"?{link}"):
        assert shown(again) == found
        assert box(again).input_value() == box(page).input_value()
        assert again.get_by_label("Folder").input_value() == "south"
    other.close()


# === What is said ===


def test_unknown_words_are_named_and_a_query_of_none_is_explained(page: Page):
    ask(page, f"{caption(FIRST)} zebra xylophone")
    expect(page.locator(".unknown")).to_contain_text("zebra, xylophone")
    assert shown(page)
    ask(page, "zebra xylophone")
    expect(page.get_by_role("alert")).to_contain_text("zebra xylophone")
    assert shown(page) == []


def test_names_are_text(page: Page):
    ask(page, caption(FIRST))
    filter_by(page, "Condition", "name != '' and folder = ''")
    assert shown(page) == [EVIL]
    expect(page.locator(".hit .name")).to_have_text(EVIL)
    ask(page, "<img src=x onerror=alert(3)><b>green")
    page.wait_for_timeout(300)  # for a dialog, which would fail the test


def test_a_slow_search_and_a_lost_server_are_shown(page: Page):
    ask(page, caption(FIRST))
    # Held until it is let go, as a busy server would.
    held: list[Any] = []
    page.route("**/run/predict*", lambda route: held.append(route))
    box(page).fill(caption(FIRST + 1))
    box(page).press("Enter")
    expect(page.locator(".waiting")).to_have_count(1)
    page.wait_for_timeout(700)
    page.screenshot(path=screenshot_folder() / "slow.png")
    with changed(page):
        held[0].continue_()
    expect(page.locator(".waiting")).to_have_count(0)
    assert shown(page)[0] == image_id(FIRST + 1)
    page.unroute("**/run/predict*")
    page.route("**/gradio_api/**", lambda route: route.abort())
    box(page).fill(caption(FIRST))
    box(page).press("Enter")
    expect(page.get_by_text("Connection to the server was lost")).to_be_visible()


# === How it is used ===


def test_the_keyboard_is_enough(page: Page):
    page.keyboard.type(caption(FIRST))
    with changed(page):
        page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    tops = page.locator("#answer a.image").evaluate_all(
        "all => all.map(image => Math.round(image.getBoundingClientRect().top))"
    )
    columns = tops.count(tops[0])
    assert columns > 2
    for key, place in (
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("ArrowLeft", columns),
        ("ArrowUp", 0),
    ):
        page.keyboard.press(key)
        expect(page.locator("#answer a.image").nth(place)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator(".hit .like").first).to_be_focused()
    with changed(page):
        page.keyboard.press("Enter")
    assert "like=" in page.url
    page.locator("body").press("/")
    expect(box(page)).to_be_focused()
    page.keyboard.type("a/b")
    assert box(page).input_value() == "a/b", "in the box it is a sign like others"


def test_a_reader_of_the_screen_hears_what_is_there(page: Page):
    ask(page, caption(FIRST))
    expect(page.get_by_role("link", name=f"1: {FIRST:06d}.png")).to_have_count(1)
    expect(page.get_by_role("list", name="Images found").get_by_role("listitem")).to_have_count(24)
    page.get_by_role("button", name="Filters").click()
    for label in ("Folder", "Taken from", "Taken to", "Condition", "Search with an image"):
        expect(page.get_by_label(label)).to_have_count(1)
    expect(page.get_by_role("status").filter(has_text="Images 1 to 24")).to_have_count(1)
    assert page.title() == "Image search"


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [("wide-light", 1280, 900, "light"), ("narrow-dark", 390, 844, "dark")],
)
def test_it_fits_wide_and_narrow_windows_light_and_dark(
    name: str,
    width: int,
    height: int,
    scheme: str,
    address: str,
    start_browser: Callable[..., BrowserContext],
):
    context = start_browser(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.pages[0]
    with opened(page, address):
        page.screenshot(path=screenshot_folder() / f"{name}-empty.png")
        ask(page, caption(FIRST))
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off"
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red, green, blue = map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))
        assert (max(red, green, blue) < 64) == (scheme == "dark")
        edges = page.locator(".hit .image").first.bounding_box()
        assert edges is not None and edges["width"] > 130, "large enough to see"
        page.screenshot(path=screenshot_folder() / f"{name}.png")
        page.get_by_role("button", name="Filters").click()
        page.wait_for_timeout(300)
        page.screenshot(path=screenshot_folder() / f"{name}-filters.png")
    context.close()


def screenshot_folder() -> Path:
    folder = Path(__file__).parents[2] / "build" / "page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
