"""Folders by one interface; object stores are in tests/extras."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.errors import raises
from tests.unit.search.plain import MODEL, PlainEncoder, files_of, write_images
from tf_dpce import storage
from tf_dpce.ray_tasks import check_cluster
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_images
from tf_dpce.storage import check_place, open_folder


def test_what_is_created_is_whole_and_never_replaced(tmp_path: Path, monkeypatch):
    folder = open_folder(tmp_path / "new")
    assert folder.names() == set()
    folder.prepare()
    folder.create("plan.json", b"first")
    with pytest.raises(FileExistsError):
        folder.create("plan.json", b"second")

    def no_links(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OSError):
        folder.create("plan.json", b"second")
    folder.create("other.json", b"other")
    assert files_of(tmp_path / "new") == {"plan.json": b"first", "other.json": b"other"}


def test_a_file_address_is_a_path(tmp_path: Path):
    images = write_images(tmp_path / "images", 4)
    for number, (source, out) in enumerate(
        ((images, str(tmp_path / "0")), (f"file://{images}", f"file://{tmp_path}/1"))
    ):
        embed(PlainEncoder(), find_images([source]), out, MODEL)
        assert files_of(tmp_path / str(number)) == files_of(tmp_path / "0")


def test_what_is_missing_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch):
    for place in ("ftp://host/out", "https://host/out", "://"):
        with raises("storage.scheme"):
            check_place(place)
    missing = ("s3fs", "gcsfs", "ray")
    hidden = lambda name: None if name in missing else find_spec(name)  # noqa: E731
    monkeypatch.setattr(storage, "find_spec", hidden)
    monkeypatch.setattr("tf_dpce.ray_tasks.find_spec", hidden)
    for place in ("s3://bucket/out", "gs://bucket/out"):
        with raises("storage.package"):
            check_place(place)
    with raises("ray.package"):
        check_cluster()


def test_an_address_where_nothing_listens_is_no_cluster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tf_dpce.ray_tasks.find_spec", lambda name: True)
    monkeypatch.setattr("tf_dpce.ray_tasks._SECONDS", 1.0)
    # One port is closed, and at the other nobody answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (9, silent.getsockname()[1]):
            monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
            with raises("ray.unreachable"):
                check_cluster()
