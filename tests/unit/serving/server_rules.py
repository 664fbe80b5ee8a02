"""What TF Serving 2.13 to 2.20 checks in its files and flags when it starts.

A file that breaks a rule keeps the server from loading any model. TensorFlow's packages have no
schema of the batching and monitoring files, so the fields are listed here. Two rules of splitting
are our own: the server takes a part that is padded, and a size of parts that nothing is split into.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tf_dpce.serving.labels import read_config

# Each number of the batching file, with the least that it may be, and its switches.
_LEAST = {
    "max_batch_size": 1,
    "batch_timeout_micros": 0,
    "max_enqueued_batches": 1,
    "num_batch_threads": 1,
    "max_execution_batch_size": 1,
}
_SWITCHES = ("enable_large_batch_splitting",)
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


def check_batching(text: str) -> None:
    """Fails unless TF Serving loads a model with these batching parameters."""
    sizes, found = [], {}
    for line in text.splitlines():
        if size := re.fullmatch(r"allowed_batch_sizes: (\d+)", line):
            sizes.append(int(size[1]))
        elif not line.startswith("#"):
            field, value = re.fullmatch(r"(\w+) \{ value: (-?\d+|true) \}", line).groups()
            assert field not in found and (field in _LEAST) == (value != "true"), field
            assert field in _SWITCHES or int(value) >= _LEAST[field], field
            found[field] = value if field in _SWITCHES else int(value)
    largest = found.get("max_batch_size", _DEFAULT_BATCH)
    assert sizes == sorted(set(sizes)) and 0 not in sizes, "sizes must rise"
    # Whether larger requests are split or not.
    assert not sizes or sizes[-1] == largest, "the last size must be max_batch_size"
    part = found.get("max_execution_batch_size")
    assert (part is not None) == ("enable_large_batch_splitting" in found), "split, and into what?"
    assert part is None or part <= largest, "a part is larger than the whole"
    assert not (part and sizes) or part in sizes, "a full part must not be padded"


def check_monitoring(text: str) -> None:
    """Fails unless TF Serving shows metrics, beside the paths of models."""
    pattern = r'prometheus_config \{ enable: true path: "/(?!v1/)[\w/]+" \}'
    assert re.fullmatch(pattern, text.strip())


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
