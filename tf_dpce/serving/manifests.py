"""Files that run TF Serving in containers: Docker Compose with Prometheus, and Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tf_dpce.serving.labels import STABLE
from tf_dpce.serving.settings import (
    CONFIG_FILE,
    CPU_BATCHING,
    GPU_BATCHING,
    GRPC_PORT,
    IMAGE,
    METRICS_PATH,
    MONITORING_FILE,
    REST_PORT,
    server_flags,
)

# Where a container sees the models and the deployment.
MODELS = "/models"
DEPLOYMENT = "/deployment"

PROMETHEUS_FILE = "prometheus.yml"

_PROMETHEUS_IMAGE = "prom/prometheus:v3.5.0"
_PROMETHEUS_PORT = 9090
# A request may decode 4 pictures at a time, each of a gigabyte if it is as large as is allowed.
_MEMORY = {"requests": "2Gi", "limits": "8Gi"}
_CPUS = {"requests": "1", "limits": "4"}
_NOBODY = 65534


def compose_file(names: Sequence[str], version: str, models: Path) -> str:
    """Composes `compose.yaml`: TF Serving and Prometheus, on this machine's loopback address.

    Args:
        names: of the models.
        version: of TF Serving.
        models: the folder of the models on the host, unless the variable MODELS names another.
    """
    serving = {
        "image": f"{IMAGE}:{version}",
        "command": server_flags(DEPLOYMENT),
        "init": True,
        "ports": [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)],
        "volumes": [f"${{MODELS:-{models}}}:{MODELS}:ro", f".:{DEPLOYMENT}:ro"],
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": _MEMORY["limits"].removesuffix("i"),
        "healthcheck": {
            # Compose takes a single dollar for a variable of its own.
            "test": ["CMD", "bash", "-c", health_command(names[0]).replace("$", "$$")],
            "interval": "10s",
            "timeout": "5s",
            "start_period": "120s",
        },
    }
    prometheus = {
        "image": _PROMETHEUS_IMAGE,
        "ports": [f"127.0.0.1:{_PROMETHEUS_PORT}:{_PROMETHEUS_PORT}"],
        "volumes": [f"./{PROMETHEUS_FILE}:/etc/prometheus/{PROMETHEUS_FILE}:ro"],
        "restart": "unless-stopped",
    }
    return _dump({"services": {"serving": serving, "prometheus": prometheus}})


def compose_gpu_file(version: str) -> str:
    """Composes what `compose.yaml` has otherwise on a GPU."""
    devices = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    serving = {
        "image": f"{IMAGE}:{version}-gpu",
        "command": server_flags(DEPLOYMENT, batching=GPU_BATCHING),
        "deploy": {"resources": {"reservations": {"devices": devices}}},
    }
    return _dump({"services": {"serving": serving}})


def prometheus_file() -> str:
    """Composes `prometheus.yml`, for Compose."""
    job = {
        "job_name": "tf_serving",
        "metrics_path": METRICS_PATH,
        "static_configs": [{"targets": [f"serving:{REST_PORT}"]}],
    }
    return _dump({"global": {"scrape_interval": "15s"}, "scrape_configs": [job]})


def health_command(name: str, port: int = REST_PORT) -> str:
    """Returns what tells, by bash alone, whether the stable version of a model answers."""
    path = f"/v1/models/{name}/labels/{STABLE}/metadata"
    return (
        f"exec 3<>/dev/tcp/127.0.0.1/{port} && "
        f"printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && "
        "read -r _ status _ <&3 && test $status = 200"
    )


def kubernetes_file(names: Sequence[str], version: str, files: Mapping[str, str]) -> str:
    """Composes `kubernetes.yaml`: configuration, deployment and service.

    Args:
        names: of the models.
        version: of TF Serving.
        files: the texts of the configuration by file name.
    """
    kept = (CONFIG_FILE, CPU_BATCHING, MONITORING_FILE)
    meta = {"name": "tf-serving", "labels": {"app": "tf-serving"}}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {name: files[name] for name in kept},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": meta["labels"]},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": _pod_metadata(meta), "spec": _pod(names, version)},
        },
    }
    ports = [_port("grpc", GRPC_PORT), _port("rest", REST_PORT)]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "selector": meta["labels"],
            "ports": [{"name": p["name"], "port": p["containerPort"]} for p in ports],
        },
    }
    return "---\n".join(map(_dump, (config, deployment, service)))


def _pod(names: Sequence[str], version: str) -> dict[str, Any]:
    container = {
        "name": "tf-serving",
        "image": f"{IMAGE}:{version}",
        "args": server_flags(DEPLOYMENT),
        "ports": [_port("grpc", GRPC_PORT), _port("rest", REST_PORT)],
        **_probes(names[0]),
        "resources": {
            kind: {"cpu": _CPUS[kind], "memory": _MEMORY[kind]} for kind in ("requests", "limits")
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # Kubernetes stops to send requests only some time after it asks a pod to end.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "10"]}}},
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS, "readOnly": True},
            {"name": "deployment", "mountPath": DEPLOYMENT, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
            {"name": "deployment", "configMap": {"name": "tf-serving"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _probes(name: str) -> dict[str, Any]:
    opened = {"tcpSocket": {"port": GRPC_PORT}, "periodSeconds": 10}
    stable = {"path": f"/v1/models/{name}/labels/{STABLE}/metadata", "port": REST_PORT}
    return {
        # The ports open when the models are loaded and warm.
        "startupProbe": {**opened, "failureThreshold": 60},
        "readinessProbe": {"httpGet": stable, "periodSeconds": 5, "timeoutSeconds": 3},
        # Not by REST: under load its queue is long, and a restart would not shorten it.
        "livenessProbe": {**opened, "failureThreshold": 6},
    }


def _pod_metadata(meta: dict[str, Any]) -> dict[str, Any]:
    annotations = {"scrape": "true", "path": METRICS_PATH, "port": str(REST_PORT)}
    named = {f"prometheus.io/{key}": value for key, value in annotations.items()}
    return {"labels": meta["labels"], "annotations": named}


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number}


def _dump(content: Any) -> str:
    return yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


class _Plain(yaml.SafeDumper):
    """YAML as people write it: no references, longer texts as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.Node:
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Plain.add_representer(str, _Plain.represent_str)
