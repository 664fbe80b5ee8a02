"""A served tiny model: by the development server, or by the real one that a variable names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.serving.servers import NAME, Served, export_tiny, running

# "binary" for an installed tensorflow_model_server, "docker" for its image.
KIND = "TF_DPCE_SERVER"


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """The folder of a version. Nobody changes it."""
    return export_tiny(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def served(exported, tmp_path_factory) -> Iterator[Served]:
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(exported.parent, models / NAME)
    kind = os.environ.get(KIND, "development")
    with running(kind, models, tmp_path_factory.mktemp("deployment")) as server:
        yield server


@pytest.fixture(scope="module")
def channel(served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as opened:
        yield opened
