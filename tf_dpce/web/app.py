"""The page: its layout in Gradio, and the routes beside it."""

from __future__ import annotations

import asyncio
import os
from importlib.resources import files
from typing import Any

# Nothing that the page does may leave the machine. Read when they are imported.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")

import gradio as gr
from fastapi import FastAPI
from starlette.requests import Request as WebRequest
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.file_kinds import file_kind
from tf_dpce.search.searcher import Searcher
from tf_dpce.web.answers import Answer, Answers, QueryImages
from tf_dpce.web.gallery import gallery_html
from tf_dpce.web.guard import Guard
from tf_dpce.web.thumbnails import LARGE, SMALL, Thumbnails, small_jpeg

_QUERY_SIDE = 160  # of the image that is searched for, in pixels
_SIDES = {"small": SMALL, "large": LARGE}
_EXAMPLES = (
    "`folder like 'dogs/%'`, `taken >= '2024-01-01' and taken < '2025-01-01'`, "
    "`width > height and bytes < 1000000`, `name in ('a.jpg', 'b.jpg')`"
)


def page_app(
    searcher: Searcher,
    *,
    local: bool = True,
    login: str | None = None,
    thumbnails: Thumbnails | None = None,
) -> ASGIApp:
    """Returns the page as an ASGI application.

    Args:
        searcher: answers the searches.
        local: see `Guard`.
        login: see `Guard`.
        thumbnails: the copies of images that it shows.
    """
    images = QueryImages()
    page = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    routes = _Routes(searcher, images, thumbnails or Thumbnails())
    page.add_route("/thumbnail", routes.thumbnail)
    page.add_route("/query-image", routes.query_image, ["POST"])
    shown = _Shown(Answers(searcher, images), images)
    asyncio.run(_mount(page, shown, probable=searcher.calibration is not None))
    return Guard(page, local, login)


async def _mount(page: FastAPI, shown: _Shown, probable: bool) -> None:
    """Adds Gradio's part; a coroutine, because Gradio would else leave an event loop behind."""
    gr.mount_gradio_app(
        page,
        _layout(shown, probable=probable),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=_theme(),
        # Gradio would rewrite the selectors of a style sheet that is handed to it as such.
        head=f"<style>{_own_file('page.css')}</style>",
    )


def _theme() -> gr.themes.Base:
    # Fonts of the reader's system: none is fetched.
    fonts = ("system-ui", "sans-serif")
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=("monospace",)
    )


def _own_file(name: str) -> str:
    return files("tf_dpce.web").joinpath(name).read_text()


class _Shown:
    """Answers a link with the values of the page's parts."""

    def __init__(self, answers: Answers, images: QueryImages) -> None:
        self._answers, self._images = answers, images

    def hits(self, link: str) -> str:
        return self._html(self._answers.answer(link))

    def all(self, link: str) -> tuple[Any, ...]:
        """Returns the hits and the fields that a link fills."""
        answer = self._answers.answer(link)
        asked = answer.request
        fields = (asked.q, asked.folder, asked.taken_from, asked.taken_to, asked.sure, asked.where)
        return self._html(answer), *fields, gr.Accordion(open=asked.is_filtered)

    def _html(self, answer: Answer) -> str:
        shown = None
        if answer.request.image and not answer.fault:
            shown = small_jpeg(self._images[answer.request.image], _QUERY_SIDE)
        return gallery_html(answer, shown)


def _layout(shown: _Shown, probable: bool) -> gr.Blocks:
    with gr.Blocks(title="Image search", analytics_enabled=False, fill_width=True) as blocks:
        with gr.Row(elem_id="ask"):
            query = gr.Textbox(
                label="Search the images",
                placeholder="What the image shows, such as: two dogs on a beach",
                show_label=False,
                container=False,
                autofocus=True,
                max_lines=1,
                scale=8,
                elem_id="query",
            )
            button = gr.Button("Search", variant="primary", scale=0, min_width=96)
        gr.HTML(_own_file("drop.html"), elem_id="drop", apply_default_css=False)
        with gr.Accordion("Filters", open=False) as accordion:
            fields = _filter_fields(probable)
        hits = gr.HTML(elem_id="answer", apply_default_css=False, js_on_load=_own_file("page.js"))
        link = gr.Textbox(visible=False)
        parts = [hits, query, *fields, accordion]
        at_once: dict[str, Any] = {
            "queue": False,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        opened = {"fn": shown.all, "inputs": [link], "outputs": parts}
        opened |= {"js": "() => [location.search]", **at_once}
        asked = {"fn": lambda link, *_: shown.hits(link), "inputs": [link, query, *fields]}
        asked |= {"outputs": [hits], "js": "(...values) => window.searchLink(...values)", **at_once}
        blocks.load(**opened)
        hits.submit(**opened)
        entered = [field.submit for field in (query, *fields) if hasattr(field, "submit")]
        gr.on([*entered, button.click], **asked)
    return blocks


def _filter_fields(probable: bool) -> list[gr.components.Component]:
    """Makes the fields in the order of `_Shown.all`."""
    with gr.Row():
        folder = gr.Textbox(label="Folder", placeholder="holidays/2024", max_lines=1)
        # Not `gr.DateTime`, whose field has no label for a reader of the screen.
        since = gr.Textbox(label="Taken from", placeholder="2024-01-31", max_lines=1)
        until = gr.Textbox(label="Taken to", placeholder="2024-12-31", max_lines=1)
        sure = gr.Slider(0, 100, step=5, label="Least probability, %", visible=probable)
    where = gr.Textbox(label="Condition", placeholder="width > height", max_lines=1)
    gr.Markdown(f"Such as {_EXAMPLES}", elem_id="examples")
    return [folder, since, until, sure, where]


class _Routes:
    """What the page serves besides Gradio's own: thumbnails of indexed images, and uploads."""

    def __init__(self, searcher: Searcher, images: QueryImages, thumbnails: Thumbnails) -> None:
        self._searcher, self._images, self._thumbnails = searcher, images, thumbnails

    async def thumbnail(self, request: WebRequest) -> Response:
        asked = request.query_params
        side = _SIDES.get(asked.get("size", ""), SMALL)
        try:
            content = await asyncio.to_thread(self._jpeg, asked.get("id", ""), side)
        except UserError as error:
            return _placeholder(error)
        # The address changes with the image, if the index knows its digest.
        age = 86_400 if asked.get("v") else 60
        headers = {"Cache-Control": f"private, max-age={age}"}
        return Response(content, media_type="image/jpeg", headers=headers)

    def _jpeg(self, image_id: str, side: int) -> bytes:
        (record,) = self._searcher.index.records("images", [image_id])
        return self._thumbnails.jpeg(record, side)

    async def query_image(self, request: WebRequest) -> Response:
        contents = await request.body()
        try:
            # What cannot be shown cannot be searched for either.
            await asyncio.to_thread(small_jpeg, contents, _QUERY_SIDE)
        except UserError as error:
            reason = f"{file_kind(contents) or 'it'} {error.message}"
            return PlainTextResponse(reason if contents else "it is empty", 422)
        return PlainTextResponse(self._images.add(contents))


def _placeholder(error: UserError) -> Response:
    """Returns an image that says why there is none; browsers show it despite its status."""
    reason = error.message if error.code == "web.image" else "not in the index"
    svg = _own_file("placeholder.svg").replace("REASON", reason)
    return Response(svg, 404, {"Cache-Control": "no-store"}, "image/svg+xml")
