"""Serves exported models: `python -m pipelines.serve`."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

from pipelines._verb import Port, options_verb, say_files, terminations
from tf_dpce.errors import UserError
from tf_dpce.files import check_writable
from tf_dpce.logging import logger
from tf_dpce.serving.tf_serving import GRPC_PORT, REST_PORT

FOLDER = ".serving"

_POLL_SECONDS = 0.2


def run(
    models: Path,
    write: Path | None = None,
    deployment: Path | None = None,
    promote: str | None = None,
    rollback: str | None = None,
    grpc_port: Port = GRPC_PORT,
    rest_port: Port = REST_PORT,
) -> None:
    """Serves exported models by TF Serving if it is installed, else by its Docker image.

    Without both it starts a development server. It can also write a deployment, or move its labels.

    Args:
        models: folder of models: saved_models.
        write: write a deployment to this folder; start no server.
        deployment: folder for the deployment of the server (default: MODELS/.serving).
        promote: only make this model's canary version stable.
        rollback: only make this model's previous version stable again.
        grpc_port: port for gRPC.
        rest_port: port for REST.
    """
    from tf_dpce.serving import deployment as deployments

    folder = write or deployment or models / FOLDER
    if write:
        check_writable(write)
    # An empty name is no model, and starts no server.
    if promote is not None:
        _show(promote, deployments.promote(models, folder, promote))
    elif rollback is not None:
        _show(rollback, deployments.rollback(models, folder, rollback))
    elif write:
        say_files(deployments.write_deployment(models, folder))
    else:
        _start(models, folder, grpc_port, rest_port)


def _show(name: str, labels: dict[str, int]) -> None:
    # By this order `stable` is the first.
    shown = sorted(labels.items(), reverse=True)
    print(f"{name}: " + ", ".join(f"{label} is version {number}" for label, number in shown))


def _start(models: Path, folder: Path, grpc_port: int, rest_port: int) -> None:
    from tf_dpce.serving import tf_serving
    from tf_dpce.serving.deployment import deployed_labels, server_version, write_deployment

    tf_serving.check_ports(grpc_port, rest_port)
    try:
        # A start moves no label of a model that has labels.
        write_deployment(models, folder, try_newest=False)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise UserError(
            "serving.read_only",
            f"the deployment {folder} cannot be written ({error.strerror}): name a folder for it "
            "by --deployment",
            folder,
        ) from None
    deployed = deployed_labels(folder)
    for name, labels in deployed.items():
        _show(name, labels)
    if command := tf_serving.binary_command(folder, grpc_port, rest_port):
        _become("TF Serving as it is installed", command)
    fault = tf_serving.explain_missing_docker()
    if fault is None:
        # As in Compose: not every patch of TensorFlow has an image.
        version = os.environ.get(tf_serving.VERSION_VARIABLE) or server_version(models, deployed)
        command = tf_serving.docker_command(models, folder, version, grpc_port, rest_port)
        _become("TF Serving in Docker", command)
    logger.info(
        f"TF Serving is not installed, and {fault}: the development server, for development only"
    )
    _serve_for_development(folder / tf_serving.HOST_CONFIG_FILE, grpc_port, rest_port)


def _become(what: str, command: list[str]) -> None:
    print(f"{what}: {' '.join(command)}", flush=True)
    os.execvp(command[0], command)


def _serve_for_development(config: Path, grpc_port: int, rest_port: int) -> None:
    import tensorflow as tf

    from tf_dpce.serving.dev_server import development_server

    # The loader of Sessions is deprecated for new code; TF Serving's path it remains.
    tf.get_logger().setLevel("ERROR")
    with terminations() as stopped:
        with development_server(config, grpc_port, rest_port) as (grpc, rest):
            address = f"gRPC at grpc://127.0.0.1:{grpc}, REST at http://127.0.0.1:{rest}"
            print(address, flush=True)
            while not stopped():
                time.sleep(_POLL_SECONDS)


build_parser, main = options_verb(
    "serve", run, {("write", "deployment"): False, ("promote", "rollback"): False}
)

if __name__ == "__main__":
    sys.exit(main())
