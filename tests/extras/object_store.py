"""A server that speaks S3, on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import httpx
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "s3://archive"


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of the server. Processes that start later find it by the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str) -> Iterator[fsspec.AbstractFileSystem]:
    """The file system of the server, with the empty bucket `archive`."""
    httpx.post(f"{endpoint}/moto-api/reset").raise_for_status()
    files = fsspec.filesystem("s3")
    files.mkdir("archive")
    yield files
    type(files).clear_instance_cache()


def objects(files: fsspec.AbstractFileSystem, url: str) -> dict[str, bytes]:
    """Every object below an address by its name, with its bytes."""
    root = url.partition("://")[2]
    files.invalidate_cache()
    return {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}


def upload(files: fsspec.AbstractFileSystem, folder: Path, url: str) -> str:
    """Puts all files below a folder below an address, which it returns."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())
    return url
