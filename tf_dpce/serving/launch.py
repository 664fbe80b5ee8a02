"""Which server this machine has, and the command that starts it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tf_dpce.serving.deployment import HOST_CONFIG_FILE
from tf_dpce.serving.manifests import DEPLOYMENT, MODELS
from tf_dpce.serving.settings import BINARY, GRPC_PORT, IMAGE, REST_PORT, server_flags

_DOCKER = "docker"
_PATIENCE_SECONDS = 20


def binary_command(folder: Path, grpc_port: int, rest_port: int) -> list[str] | None:
    """Returns what starts TF Serving where it is installed, else None.

    Args:
        folder: the deployment.
        grpc_port: of gRPC.
        rest_port: of REST.
    """
    if shutil.which(BINARY) is None:
        return None
    flags = server_flags(
        str(folder.resolve()), HOST_CONFIG_FILE, grpc_port=grpc_port, rest_port=rest_port
    )
    return [BINARY, *flags]


def docker_command(
    models: Path, folder: Path, version: str, grpc_port: int, rest_port: int
) -> list[str] | None:
    """Returns what starts TF Serving's image where Docker runs, else None.

    Args:
        models: the folder of the models.
        folder: the deployment.
        version: of TF Serving.
        grpc_port: of gRPC.
        rest_port: of REST.
    """
    if not _answers([_DOCKER, "version"]):
        return None
    ports = [f"{grpc_port}:{GRPC_PORT}", f"{rest_port}:{REST_PORT}"]
    volumes = [f"{models.resolve()}:{MODELS}:ro", f"{folder.resolve()}:{DEPLOYMENT}:ro"]
    options = [part for port in ports for part in ("-p", port)]
    options += [part for volume in volumes for part in ("-v", volume)]
    # With an init process, since the image's own does not pass signals on.
    return [
        _DOCKER,
        "run",
        "--rm",
        "--init",
        *options,
        f"{IMAGE}:{version}",
        *server_flags(DEPLOYMENT),
    ]


def _answers(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
