"""Which server this machine has, whether its ports are free, and the command that starts it."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.serving.deployment import HOST_BATCHING_FILE, HOST_CONFIG_FILE
from tf_dpce.serving.manifests import DEPLOYMENT, MODELS
from tf_dpce.serving.settings import BINARY, GRPC_PORT, IMAGE, REST_PORT, server_flags

_DOCKER = "docker"
_PATIENCE_SECONDS = 20


def check_ports(*ports: int) -> None:
    """Refuses ports that somebody has, before anything is written for a server on them.

    Raises:
        UserError: one is taken, or named twice.
    """
    if len(set(ports)) < len(ports):
        raise UserError("gRPC and REST need a port each: choose another for one of them")
    with ExitStack() as opened:
        for port in ports:
            try:
                # On all addresses, as TF Serving listens.
                opened.enter_context(socket.create_server(("", port)))
            except OSError as error:
                # What only the server may open, as Docker a port below 1024, is left to it.
                if error.errno == errno.EADDRINUSE:
                    raise UserError(
                        f"port {port} is taken, perhaps by another server: choose another"
                    ) from None


def binary_command(folder: Path, grpc_port: int, rest_port: int) -> list[str] | None:
    """Returns what starts TF Serving where it is installed, else None.

    Args:
        folder: the deployment.
        grpc_port: of gRPC.
        rest_port: of REST.
    """
    if shutil.which(BINARY) is None:
        return None
    configs = HOST_CONFIG_FILE, HOST_BATCHING_FILE
    return [BINARY, *server_flags(str(folder.resolve()), *configs, grpc_port, rest_port, None)]


def docker_command(
    models: Path, folder: Path, version: str, grpc_port: int, rest_port: int
) -> list[str]:
    """Returns what starts TF Serving's image by Docker.

    Args:
        models: the folder of the models.
        folder: the deployment.
        version: of TF Serving.
        grpc_port: of gRPC.
        rest_port: of REST.
    """
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
        *server_flags(DEPLOYMENT, batching=HOST_BATCHING_FILE, cores=None),
    ]


def docker_fault() -> str | None:
    """Returns why Docker cannot run a server here, or None where it can."""
    if shutil.which(_DOCKER) is None:
        return "Docker is not installed"
    try:
        command = [_DOCKER, "version"]
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"Docker did not answer within {_PATIENCE_SECONDS} seconds"
    if done.returncode:
        return "Docker is installed, but `docker version` fails: its daemon is away or not for you"
    return None
