"""A web application on a port of this machine, in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from tf_dpce.errors import UserError


def listen(host: str, port: int, code: str = "web.port") -> socket.socket:
    """Opens a port, before anything is loaded that takes long.

    Args:
        host: the address on which to listen, or its name.
        port: 0 takes a free one.
        code: code of the error.

    Raises:
        UserError: the port cannot be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        message = f"port {port} of {host} cannot be opened ({error.strerror}): choose another"
        raise UserError(code, message) from None
    # Connections inherit it. Without it a body waits 40 ms until the reader acknowledges its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


@contextmanager
def serving(
    app: ASGIApp, listening: socket.socket, grace_seconds: int = 2, **settings: Any
) -> Iterator[None]:
    """Serves an application on an open port during the block.

    Args:
        app: the application.
        listening: what `listen` returned.
        grace_seconds: how long requests that are under way may take at the end. An open page has a
            connection that never ends by itself.
        **settings: further settings of uvicorn.
    """
    config = uvicorn.Config(
        app,
        loop="asyncio",
        # Broken requests of clients are none of the operator's business.
        log_config=None,
        log_level="critical",
        timeout_graceful_shutdown=grace_seconds,
        proxy_headers=False,
        server_header=False,
        **settings,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listening]], daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
