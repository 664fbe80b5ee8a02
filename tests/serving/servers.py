"""Models for servers to serve, and plain ways to ask them."""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.export.tiny import WORDS, tiny_model
from tf_dpce.export.publish import export_model
from tf_dpce.export.versions import publish_version
from tf_dpce.preprocessing.text import CaptionEncoder

NAME = "tiny"
PATIENCE = 60


def export_tiny(models: Path) -> Path:
    """Exports version 1 of a tiny model into a folder of models."""
    return export_model(tiny_model(), CaptionEncoder(WORDS, 6, lowercase=True), models / NAME)


def publish_again(models: Path) -> Path:
    """Publishes the newest version once more, under the next number."""
    newest = max((models / NAME).glob("[0-9]*"), key=lambda folder: int(folder.name))
    return publish_version(
        models / NAME, lambda aside: shutil.copytree(newest, aside, dirs_exist_ok=True)
    )


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """Returns the status and the JSON that a REST server answers; `body` makes it a POST."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=content)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def wait_until(true: Callable[[], bool]) -> None:
    """Waits for something that must become true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)
