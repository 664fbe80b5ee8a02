"""A served tiny model: by the development server, or by a real one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.serving.servers import NAME, export_tiny
from tf_dpce.serving.development import development_server


@dataclass(frozen=True)
class Served:
    """A server, by its ports, and the folder of models that it serves."""

    grpc_port: int
    rest_port: int
    models: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """The folder of a version. Nobody changes it."""
    return export_tiny(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def served(exported, tmp_path_factory) -> Iterator[Served]:
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(exported.parent, models / NAME)
    config = models / "models.config"
    config.write_text(
        "model_config_list { config { name: 'tiny' base_path: '%s' model_platform: 'tensorflow' "
        "model_version_policy { all {} } version_labels { key: 'stable' value: 1 } } }"
        % (models / NAME)
    )
    with development_server(config, poll_seconds=0.1) as (grpc_port, rest_port):
        yield Served(grpc_port, rest_port, models)


@pytest.fixture(scope="module")
def channel(served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as opened:
        yield opened
