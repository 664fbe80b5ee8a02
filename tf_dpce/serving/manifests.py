"""Files that run TF Serving in containers, by Docker Compose with Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tf_dpce.serving.labels import STABLE
from tf_dpce.serving.settings import (
    CORES,
    GPU_BATCHING,
    GRPC_PORT,
    IMAGE,
    METRICS_PATH,
    REST_PORT,
    server_flags,
)

# Where a container sees the models and the deployment.
MODELS = "/models"
DEPLOYMENT = "/deployment"

# A batch decodes 4 images at a time, each of half a gigabyte if it is as large as is allowed.
MEMORY = "8Gi"

# Not every patch of TensorFlow has a TF Serving: this variable names another one.
VERSION = "TF_SERVING"

PROMETHEUS_FILE = "prometheus.yml"

_PROMETHEUS_IMAGE = "prom/prometheus:v3.5.0"
_PROMETHEUS_PORT = 9090
_IMAGE = f"{IMAGE}:${{{VERSION}:-%s}}"


def compose_file(names: Sequence[str], version: str, models: Path) -> str:
    """Composes `compose.yaml`: TF Serving and Prometheus, on this machine's loopback address.

    Args:
        names: of the models.
        version: of TF Serving.
        models: the folder of the models on the host, unless the variable MODELS names another.
    """
    serving = {
        "image": _IMAGE % version,
        "command": server_flags(DEPLOYMENT),
        "init": True,
        "ports": [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)],
        "volumes": [f"${{MODELS:-{models}}}:{MODELS}:ro", f".:{DEPLOYMENT}:ro"],
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "cpus": CORES,
        "mem_limit": MEMORY.removesuffix("i"),
        "healthcheck": {
            # Compose takes a single dollar for a variable of its own.
            "test": ["CMD", "bash", "-c", health_command(names).replace("$", "$$")],
            "interval": "10s",
            "timeout": "10s",
            "start_period": "120s",
        },
    }
    prometheus = {
        "image": _PROMETHEUS_IMAGE,
        "ports": [f"127.0.0.1:{_PROMETHEUS_PORT}:{_PROMETHEUS_PORT}"],
        "volumes": [f"./{PROMETHEUS_FILE}:/etc/prometheus/{PROMETHEUS_FILE}:ro"],
        "restart": "unless-stopped",
    }
    return dump({"services": {"serving": serving, "prometheus": prometheus}})


def compose_gpu_file(version: str) -> str:
    """Composes what `compose.yaml` has otherwise on a GPU."""
    devices = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    serving = {
        "image": f"{_IMAGE % version}-gpu",
        "command": server_flags(DEPLOYMENT, batching=GPU_BATCHING),
        "deploy": {"resources": {"reservations": {"devices": devices}}},
    }
    return dump({"services": {"serving": serving}})


def prometheus_file() -> str:
    """Composes `prometheus.yml`, for Compose."""
    job = {
        "job_name": "tf_serving",
        "metrics_path": METRICS_PATH,
        "static_configs": [{"targets": [f"serving:{REST_PORT}"]}],
    }
    return dump({"global": {"scrape_interval": "15s"}, "scrape_configs": [job]})


def health_command(names: Sequence[str], port: int = REST_PORT) -> str:
    """Returns what tells, by bash alone, whether the stable version of every model answers."""
    path = f"/v1/models/$name/labels/{STABLE}/metadata"
    return (
        f"for name in {' '.join(names)}; do {{ exec 3<>/dev/tcp/127.0.0.1/{port} && "
        f"printf 'GET %s HTTP/1.0\\r\\n\\r\\n' {path} >&3 && "
        "read -r _ status _ <&3 && test $status = 200; } || exit 1; done"
    )


def dump(content: Any) -> str:
    """Returns content as YAML."""
    return yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


class _Plain(yaml.SafeDumper):
    """YAML as people write it: no references, longer texts as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.Node:
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Plain.add_representer(str, _Plain.represent_str)
