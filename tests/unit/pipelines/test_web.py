"""`web`: how it starts, what it needs to know, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from pipelines import embed, index, web
from tests.errors import printed_code, raises
from tests.unit.pipelines.test_embed import draw_images
from tests.unit.serving.servers import free_port, running
from tests.unit.web.pages import search, shown_ids


@pytest.fixture(scope="module")
def made(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of twelve images by the tiny model."""
    root = tmp_path_factory.mktemp("web")
    images = draw_images(root / "images", 12)
    model = ["--model", str(tiny_export)]
    assert embed.main([*model, "--images", images, "--out", str(root / "vectors")]) == 0
    made = root / "index"
    assert index.main(["--embeddings", str(root / "vectors"), "--out", str(made)]) == 0
    return made


@contextmanager
def started(root: Path, cache: Path, *options: object) -> Iterator[httpx.Client]:
    """Runs the verb until the end of the block; yields a client of the page."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.web", *map(str, options), "--port", str(free_port())],
        cwd=root,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), web.LOGIN: "ann:secret"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        with httpx.Client(base_url=found[0], auth=("ann", "secret"), timeout=60) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        # One line, that the model is loading.
        assert (process.returncode, err.count("\n"), err.split()[0]) == (0, 1, "loading")
    finally:
        process.kill()
        process.wait()


@pytest.mark.process
@pytest.mark.full
def test_it_serves_the_page_until_it_is_asked_to_end(
    made: Path, tiny_export: Path, project_root: Path, tmp_path: Path
):
    with started(project_root, tmp_path, "--index", made, "--model", tiny_export) as client:
        assert client.get("/", auth=("ann", "guess")).status_code == 401
        ids = shown_ids(search(client, "?q=a+dog"))
        assert len(ids) == 12
        assert client.get("/thumbnail", params={"id": ids[0]}).status_code == 200
    assert list(tmp_path.rglob("*.jpg")), "in the cache that the environment names"


@pytest.mark.process
@pytest.mark.full
def test_the_model_may_be_on_a_server(
    made: Path, tiny_export: Path, project_root: Path, tmp_path: Path
):
    models = tmp_path / "models"
    models.mkdir()
    (models / "tiny").symlink_to(tiny_export)
    with running("development", models, tmp_path / "deployment") as served:
        address = f"http://127.0.0.1:{served.rest_port}#tiny"
        with started(project_root, tmp_path, "--index", made, "--model", address) as client:
            assert len(shown_ids(search(client, "?q=a+dog"))) == 12
            assert "No answer" not in search(client, "?q=a+dog")


def test_name_and_password_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch):
    assert web.read_login(None) is None
    path = tmp_path / "login"
    path.write_text("ann:se:cret é\n")
    assert web.read_login(path) == "ann:se:cret é"
    monkeypatch.setenv(web.LOGIN, "bob:secret")
    assert (web.read_login(None), web.read_login(path)) == ("bob:secret", "ann:se:cret é")
    for text in ("", "ann", "ann:", ":secret", "ann:a\nbob:b"):
        path.write_text(text)
        with raises("web.login", path):
            web.read_login(path)
        monkeypatch.setenv(web.LOGIN, text)
        with raises("web.login"):
            web.read_login(None)


def test_a_page_for_others_without_a_password_is_warned_of(
    made: Path, tmp_path: Path, monkeypatch, capsys
):
    shown: list[dict[str, object]] = []
    monkeypatch.setattr(web, "show", lambda *where, **how: shown.append(how))
    options = ["--index", str(made), "--model", "unused", "--port", str(free_port())]
    (tmp_path / "login").write_text("ann:secret")
    login = ["--login", str(tmp_path / "login")]
    for more, how, warned in (
        ([], {"local": True, "login": None}, False),
        (["--host", "localhost"], {"local": True, "login": None}, False),
        (["--host", "0.0.0.0"], {"local": False, "login": None}, True),
        (["--host", "0.0.0.0", *login], {"local": False, "login": "ann:secret"}, False),
    ):
        assert web.main([*options, *more]) == 0
        assert shown.pop() == how | {"runtime": "tensorflow"}
        assert ("--login" in capsys.readouterr().err) == warned


def test_a_port_that_is_taken_and_an_index_without_images_are_refused(
    made: Path, tiny_export: Path, tmp_path: Path, capsys
):
    from tf_dpce.serving.http_server import listen

    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert web.main(["--index", str(made), "--model", "unused", "--port", port]) == 1
    assert printed_code(capsys.readouterr().err) == "web.port"
    (tmp_path / "texts.txt").write_text("a dog\n")
    model = ["--model", str(tiny_export), "--texts", str(tmp_path / "texts.txt")]
    assert embed.main([*model, "--out", str(tmp_path / "vectors")]) == 0
    texts = str(tmp_path / "index")
    assert index.main(["--embeddings", str(tmp_path / "vectors"), "--out", texts]) == 0
    assert web.main(["--index", texts, "--model", str(tiny_export)]) == 1
    assert printed_code(capsys.readouterr().err) == "search.kind"
