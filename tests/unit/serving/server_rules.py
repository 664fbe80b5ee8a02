"""What TF Serving 2.13 to 2.20 checks in its files and flags when it starts.

A file that breaks a rule keeps the server from loading any model. TensorFlow's packages have no
schema of the batching and monitoring files, so the fields are listed here. Two rules of splitting
are our own: the server takes a part that is padded, and a size of parts that nothing is split into.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

from tf_dpce.serving.labels import read_config

_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64, _BOOL, _STRING = _FIELD.TYPE_INT64, _FIELD.TYPE_BOOL, _FIELD.TYPE_STRING
# Fields of messages, each with its type: a number of `_FIELD`, or the name of a message.
_MESSAGES = {
    "Int64": {"value": _INT64},
    "Bool": {"value": _BOOL},
    "String": {"value": _STRING},
    "BatchingParameters": {
        "max_batch_size": "Int64",
        "batch_timeout_micros": "Int64",
        "max_enqueued_batches": "Int64",
        "num_batch_threads": "Int64",
        "thread_pool_name": "String",
        "allowed_batch_sizes": _INT64,
        "pad_variable_length_inputs": _BOOL,
        "enable_large_batch_splitting": "Bool",
        "max_execution_batch_size": "Int64",
    },
    "Prometheus": {"enable": _BOOL, "path": _STRING},
    "MonitoringConfig": {"prometheus_config": "Prometheus"},
}
_DEFAULT_BATCH = 1000

# The flags that matter to a deployment and that every one of these versions knows.
_FLAGS = {
    "port": r"\d+",
    "rest_api_port": r"\d+",
    "grpc_max_threads": r"[1-9]\d*",
    "num_load_threads": r"\d+",
    "model_config_file": r"/.+",
    "model_config_file_poll_wait_seconds": r"\d+",
    "allow_version_labels_for_unavailable_models": None,
    "enable_batching": None,
    "batching_parameters_file": r"/.+",
    "monitoring_config_file": r"/.+",
    "tensorflow_intra_op_parallelism": r"\d+",
    "tensorflow_inter_op_parallelism": r"\d+",
}


def _schema() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="rules.proto", package="rules", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            many = field == "allowed_batch_sizes"
            label = _FIELD.LABEL_REPEATED if many else _FIELD.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".rules.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name], pool)


def _parse(text: str, name: str) -> Message:
    return text_format.Parse(text, _schema()[f"rules.{name}"]())


def check_batching(text: str) -> None:
    """Fails unless TF Serving loads a model with these batching parameters."""
    found = _parse(text, "BatchingParameters")
    for field, least in (
        ("max_batch_size", 1),
        ("batch_timeout_micros", 0),
        ("max_enqueued_batches", 1),
        ("num_batch_threads", 1),
        ("max_execution_batch_size", 1),
    ):
        if found.HasField(field):
            assert getattr(found, field).value >= least, field
    largest = found.max_batch_size.value if found.HasField("max_batch_size") else _DEFAULT_BATCH
    sizes = list(found.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and all(size > 0 for size in sizes), "sizes must rise"
    # Whether larger requests are split or not.
    assert not sizes or sizes[-1] == largest, "the last size must be max_batch_size"
    if found.enable_large_batch_splitting.value:
        assert found.HasField("max_execution_batch_size"), "splitting into which size?"
        part = found.max_execution_batch_size.value
        assert part <= largest, "a part is larger than the whole"
        assert not sizes or part in sizes, "a full part must not be padded"
    else:
        assert not found.HasField("max_execution_batch_size"), "nothing is split"


def check_monitoring(text: str) -> None:
    """Fails unless TF Serving shows metrics, beside the paths of models."""
    found = _parse(text, "MonitoringConfig").prometheus_config
    assert found.enable and re.fullmatch(r"/(?!v1/)[\w/]+", found.path)


def check_models(path: Path, versions: dict[str, list[int]]) -> None:
    """Fails unless TF Serving takes a `models.config`; `versions` are those on disk, by model."""
    models = read_config(path).model_config_list.config
    names = [model.name for model in models]
    assert names and all(names) and len(set(names)) == len(names), "names are given once"
    for model in models:
        assert model.base_path.startswith("/"), "a path must be absolute"
        assert model.model_platform == "tensorflow" and not model.model_type
        policy = model.model_version_policy
        assert policy.HasField("all") or policy.specific.versions or policy.latest.num_versions
        # A label in a request's path has only these characters, and its version must load.
        for label, version in model.version_labels.items():
            assert re.fullmatch(r"[a-zA-Z0-9_]+", label) and version in versions[model.name]


def check_flags(flags: Iterable[str]) -> None:
    """Fails unless every TF Serving from 2.13 to 2.20 starts with these flags."""
    given = {}
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        assert name in _FLAGS and name not in given, flag
        assert re.fullmatch(_FLAGS[name] or "", value), flag
        given[name] = value
    assert given["port"] != given["rest_api_port"]
    # A file without the flag is an error; metrics are served by the port of REST.
    assert "batching_parameters_file" not in given or "enable_batching" in given
    assert "monitoring_config_file" not in given or int(given["rest_api_port"])
