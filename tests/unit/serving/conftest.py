"""A served tiny model: by the development server, or by another one that a variable names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.unit.serving.servers import DEVELOPMENT, EXPORT, KIND, NAME, Served, export_toy, running
from tf_dpce.export.golden import load_examples


@pytest.fixture(scope="session")
def exported(request: pytest.FixtureRequest) -> Path:
    """The folder of a version. Nobody changes it."""
    return EXPORT or request.getfixturevalue("tiny_export") / "1"


@pytest.fixture(scope="session")
def recorded(exported) -> dict:
    """The golden examples of the export, by signature."""
    return load_examples(exported)


@pytest.fixture(scope="session")
def caption(recorded) -> str:
    """The first example, of words that the model knows."""
    return recorded["encode_text"].inputs[0].decode()


@pytest.fixture(scope="session")
def width(recorded) -> int:
    """The width of an embedding."""
    return recorded["encode_text"].embeddings.shape[1]


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """The folder of a model that loads at once; nobody writes to it."""
    return export_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def served(exported, tmp_path_factory) -> Iterator[Served]:
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(exported.parent, models / NAME)
    kind = os.environ.get(KIND, DEVELOPMENT)
    with running(kind, models, tmp_path_factory.mktemp("deployment")) as server:
        yield server


@pytest.fixture(scope="session")
def channel(served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"{served.host}:{served.grpc_port}") as opened:
        yield opened
