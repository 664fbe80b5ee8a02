"""Shows a page in the browser that searches an index: `python -m pipelines.web`."""

from __future__ import annotations

import io
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from pipelines._verb import Port, options_verb, terminations
from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger
from tf_dpce.runtimes import AnyRuntime

PORT = 7860
LOGIN = "TF_DPCE_LOGIN"

_POLL_SECONDS = 0.2


def run(
    index: str,
    model: str,
    port: Port = PORT,
    host: str = "127.0.0.1",
    login: Path | None = None,
    runtime: AnyRuntime = "tensorflow",
) -> None:
    """Shows a page in the browser that searches the images of an index.

    Args:
        index: folder of an index.
        model: model that the index was built with, or the address of a server that has it:
            http://HOST:8501#NAME.
        port: port of the page.
        host: address on which it listens; by default only this machine can open it.
        login: file with NAME:PASSWORD that visitors must give (default: the variable TF_DPCE_LOGIN,
            or none).
        runtime: what embeds queries; all but tensorflow must have been exported.
    """
    from tf_dpce.search.index.build import open_index
    from tf_dpce.search.interface import check_answerable
    from tf_dpce.serving.http_server import listen
    from tf_dpce.web.guard import LOOPBACK

    check_answerable(open_index(index).counts, "images", 1)
    needed = read_login(login)
    if needed is None and host not in LOOPBACK:
        logger.warning(f"whoever reaches {host} can search and see the images: set a --login")
    with listen(host, port) as listening:
        show(index, model, listening, local=host in LOOPBACK, login=needed, runtime=runtime)


def read_login(path: Path | None) -> str | None:
    """Returns NAME:PASSWORD from a file, or else from the environment, or None.

    It is not an option, because other users of a machine see the options of a process.

    Raises:
        UserError: the file cannot be read, or the text is not of this form.
    """
    if path is None and LOGIN not in os.environ:
        return None
    try:
        text = (os.environ[LOGIN] if path is None else path.read_text()).strip()
    except (OSError, UnicodeDecodeError):
        raise UserError("web.login", f"{path} cannot be read as a text", path) from None
    name, _, password = text.partition(":")
    if not (name and password) or "\n" in text:
        message = f"{path or LOGIN} is not one line of NAME:PASSWORD"
        raise UserError("web.login", message, path)
    return text


def show(
    index: str,
    model: str,
    listening: socket.socket,
    *,
    local: bool = True,
    login: str | None = None,
    runtime: AnyRuntime = "tensorflow",
) -> None:
    """Serves the page until the process is asked to end."""
    from tf_dpce.search.searcher import Searcher
    from tf_dpce.serving.client import Client

    encoder = Client.at(model) if "://" in model else model
    logger.info(f"loading {shorten(model)}: the address of the page follows")
    searcher = Searcher(index, encoder, runtime=runtime)
    from tf_dpce.serving.http_server import serving
    from tf_dpce.web.app import page_app

    _warm_up(searcher)
    host, port = listening.getsockname()[:2]
    with (
        terminations() as stopped,
        serving(page_app(searcher, local=local, login=login), listening),
    ):
        print(f"the page: http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        while not stopped():
            time.sleep(_POLL_SECONDS)


def _warm_up(searcher: object) -> None:
    """Searches and draws once, so that the first visitor does not wait for what is loaded then."""
    from PIL import Image

    from tf_dpce.search.queries.query import Term
    from tf_dpce.web.thumbnails import SMALL, small_jpeg

    pixel = io.BytesIO()
    Image.new("L", (1, 1)).save(pixel, "PNG")
    small_jpeg(pixel.getvalue(), SMALL)
    with suppress(UserError):
        searcher.search([Term(text="a")], top=1, kind="images")


build_parser, main = options_verb("web", run)

if __name__ == "__main__":
    sys.exit(main())
