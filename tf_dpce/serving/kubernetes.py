"""The manifest that runs TF Serving on Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tf_dpce.serving.manifests import DEPLOYMENT, MEMORY, MODELS, dump, health_command
from tf_dpce.serving.settings import (
    BINARY,
    CONFIG_FILE,
    CORES,
    CPU_BATCHING,
    GPU_BATCHING,
    GRPC_PORT,
    IMAGE,
    METRICS_PATH,
    MONITORING_FILE,
    REST_PORT,
    server_flags,
)

_NOBODY = 65534
# For requests that are still sent, or still computed, when a pod is asked to end: 10 seconds until
# the services have heard of it, then the 30 that a request may take.
_DRAIN_SECONDS = 40


def kubernetes_file(
    names: Sequence[str], version: str, files: Mapping[str, str], gpu: bool = False
) -> str:
    """Composes `kubernetes.yaml`: configuration, deployment and service.

    Args:
        names: of the models.
        version: of TF Serving.
        files: the texts of the configuration by file name.
        gpu: gives each pod a GPU.
    """
    kept = (CONFIG_FILE, GPU_BATCHING if gpu else CPU_BATCHING, MONITORING_FILE)
    meta = {"name": "tf-serving", "labels": {"app": "tf-serving"}}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {name: files[name] for name in kept},
    }
    # A cluster seldom has a GPU to spare for one pod more.
    one_more, one_less = {"maxUnavailable": 0, "maxSurge": 1}, {"maxUnavailable": 1, "maxSurge": 0}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": meta["labels"]},
            "strategy": {"rollingUpdate": one_less if gpu else one_more},
            "template": {"metadata": _pod_metadata(meta), "spec": _pod(names, version, gpu)},
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
    return "---\n".join(map(dump, (config, deployment, service)))


def _pod(names: Sequence[str], version: str, gpu: bool) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        # The server has no handler of SIGTERM, so as process 1 it would not end by it, nor would
        # the image's own script pass it on. With shared processes it is not process 1.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": _DRAIN_SECONDS + 20,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(names, version, gpu)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
            {"name": "deployment", "configMap": {"name": "tf-serving"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(names: Sequence[str], version: str, gpu: bool) -> dict[str, Any]:
    return {
        "name": "tf-serving",
        "image": f"{IMAGE}:{version}{'-gpu' if gpu else ''}",
        "command": [BINARY],
        "args": server_flags(DEPLOYMENT, batching=GPU_BATCHING if gpu else CPU_BATCHING),
        "ports": [_port("grpc", GRPC_PORT), _port("rest", REST_PORT)],
        **_probes(names),
        "resources": {
            "requests": {"cpu": "1", "memory": "2Gi"},
            "limits": {
                "cpu": str(CORES),
                "memory": MEMORY,
                **({"nvidia.com/gpu": 1} if gpu else {}),
            },
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_DRAIN_SECONDS)]}}},
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS, "readOnly": True},
            {"name": "deployment", "mountPath": DEPLOYMENT, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _probes(names: Sequence[str]) -> dict[str, Any]:
    opened = {"tcpSocket": {"port": GRPC_PORT}, "periodSeconds": 10, "timeoutSeconds": 5}
    answered = {"exec": {"command": ["bash", "-c", health_command(names)]}}
    return {
        # A pod gets requests only after every model has answered once.
        "startupProbe": {
            **answered,
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 60,
        },
        # From then on a model has a version that answers, as TF Serving lets none go before there
        # is another. So only the server itself is looked at, and not by a request: under load its
        # queue is long, and pods that are taken out for that leave more load to the others.
        "readinessProbe": {**opened, "failureThreshold": 3},
        "livenessProbe": {**opened, "failureThreshold": 6},
    }


def _pod_metadata(meta: dict[str, Any]) -> dict[str, Any]:
    annotations = {"scrape": "true", "path": METRICS_PATH, "port": str(REST_PORT)}
    named = {f"prometheus.io/{key}": value for key, value in annotations.items()}
    return {"labels": meta["labels"], "annotations": named}


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number}
