"""How TF Serving is started: its flags, its command on this machine, and whether it can run."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.serving.labels import STABLE

IMAGE = "tensorflow/serving"
BINARY = "tensorflow_model_server"
GRPC_PORT = 8500
REST_PORT = 8501

# Files of a deployment. The one in `host` has paths of this machine, for a server outside of a
# container.
CONFIG_FILE = "models.config"
MONITORING_FILE = "monitoring.config"
CPU_BATCHING = "batching-cpu.config"
HOST_CONFIG_FILE = f"host/{CONFIG_FILE}"

# Where a container sees the models and the deployment.
MODELS = "/models"
DEPLOYMENT = "/deployment"
# Number of cores for a container. The server itself would count those of the whole node.
CORES = 4
# Number of gRPC calls that the server takes up at once. It declines further ones, and by default
# 4 calls for each core, of which 2 cores answered about 7.
GRPC_CALLS = 64
# Not every patch of TensorFlow has a TF Serving; this variable names another version.
VERSION_VARIABLE = "TF_SERVING"

_DOCKER_SECONDS = 20


def server_flags(
    folder: str,
    config: str = CONFIG_FILE,
    grpc_port: int = GRPC_PORT,
    rest_port: int = REST_PORT,
    cores: int | None = CORES,
) -> list[str]:
    """Returns the flags of TF Serving, without batching.

    Args:
        folder: path of the deployment, as the server sees it.
        config: name of its `models.config` in there.
        grpc_port: port of gRPC.
        rest_port: port of REST and the metrics.
        cores: number of threads that compute; None leaves it to the server.
    """
    pools = () if cores is None else ("intra", "inter")
    return [
        f"--model_config_file={folder}/{config}",
        "--model_config_file_poll_wait_seconds=5",
        # Without it no label could stand in the configuration at the start.
        "--allow_version_labels_for_unavailable_models",
        # A version that cannot be loaded occupies a thread for 5 minutes; the other thread loads
        # those that can.
        "--num_load_threads=2",
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--grpc_max_threads={GRPC_CALLS}",
        f"--monitoring_config_file={folder}/{MONITORING_FILE}",
        *(f"--tensorflow_{pool}_op_parallelism={cores}" for pool in pools),
    ]


def batching_flags(folder: str, file: str) -> list[str]:
    """Returns the flags that make TF Serving combine simultaneous requests into batches.

    With them TF Serving 2.19 and 2.20 survives no request without rows, so a gateway has to refuse
    those.

    Args:
        folder: path of the deployment, as the server sees it.
        file: name of the batching parameters in there.
    """
    return ["--enable_batching", f"--batching_parameters_file={folder}/{file}"]


def health_command(names: Iterable[str], port: int = REST_PORT) -> str:
    """Returns a command of bash alone that fails unless the stable version of each model answers.

    Args:
        names: names of models, of letters, digits and - _ . alone.
        port: port of REST.
    """
    path = f"/v1/models/$name/labels/{STABLE}/metadata"
    return (
        f"for name in {' '.join(names)}; do {{ exec 3<>/dev/tcp/127.0.0.1/{port} && "
        f"printf 'GET %s HTTP/1.0\\r\\n\\r\\n' {path} >&3 && "
        "read -r _ status _ <&3 && test $status = 200; } || exit 1; done"
    )


def check_ports(*ports: int) -> None:
    """Refuses ports that are in use, before anything is written for a server on them.

    Raises:
        UserError: a port is taken, or named twice.
    """
    with ExitStack() as opened:
        for port in ports:
            try:
                # On all addresses, because TF Serving listens there.
                opened.enter_context(socket.create_server(("", port)))
            except OSError as error:
                # A port below 1024 may be open to Docker alone, so other errors are left to it.
                if error.errno == errno.EADDRINUSE:
                    message = f"port {port} is taken, by another server or twice: choose another"
                    raise UserError("serving.port", message) from None


def binary_command(folder: Path, grpc_port: int, rest_port: int) -> list[str] | None:
    """Returns the command that starts TF Serving, or None if it is not installed.

    Args:
        folder: the deployment.
        grpc_port: port of gRPC.
        rest_port: port of REST.
    """
    if shutil.which(BINARY) is None:
        return None
    root = str(folder.resolve())
    return [BINARY, *server_flags(root, HOST_CONFIG_FILE, grpc_port, rest_port, cores=None)]


def docker_command(
    models: Path, folder: Path, version: str, grpc_port: int, rest_port: int
) -> list[str]:
    """Returns the command that starts TF Serving's image by Docker.

    Args:
        models: the folder of the models.
        folder: the deployment.
        version: version of TF Serving.
        grpc_port: port of gRPC on this machine.
        rest_port: port of REST on this machine.
    """
    # With an init process, because the image's own script does not pass signals on.
    command = ["docker", "run", "--rm", "--init"]
    for inner, outer in ((GRPC_PORT, grpc_port), (REST_PORT, rest_port)):
        command += ["-p", f"{outer}:{inner}"]
    for inner, outer in ((MODELS, models), (DEPLOYMENT, folder)):
        command += ["-v", f"{outer.resolve()}:{inner}:ro"]
    return [*command, f"{IMAGE}:{version}", *server_flags(DEPLOYMENT, cores=None)]


def explain_missing_docker() -> str | None:
    """Returns why Docker cannot run a server here, or None if it can."""
    try:
        command = ["docker", "version"]
        done = subprocess.run(command, capture_output=True, timeout=_DOCKER_SECONDS)
    except OSError:
        # It is missing, or a folder of PATH cannot be read.
        return "Docker is not installed"
    except subprocess.TimeoutExpired:
        return f"Docker did not answer within {_DOCKER_SECONDS} seconds"
    if done.returncode:
        return "`docker version` fails: no daemon runs, or you may not use it"
    return None
