"""The recipes of docs/fleet.md do what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.embed import build_parser


@pytest.fixture
def page(project_root: Path) -> str:
    return (project_root / "docs" / "fleet.md").read_text()


def shards(command: str, folder: Path, index: str, numbers: range) -> list[str]:
    """What the command of a task gives `--shard`, for each index of a task."""
    python = folder / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    found = []
    for number in numbers:
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", index: str(number)}
        said = subprocess.check_output(["sh", "-c", command], env=environment, text=True)
        module, verb, *argv = shlex.split(said)
        assert (module, verb) == ("-m", "pipelines.embed")
        found.append(build_parser(argv).parse_args(argv).shard)
    return found


def test_every_index_of_the_kubernetes_job_is_a_part(page: str, tmp_path: Path):
    [text] = re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    # Kubernetes takes these two for indexed jobs alone, and only together with this policy.
    assert {"backoffLimitPerIndex", "maxFailedIndexes"} <= set(spec)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    count = spec["completions"]
    assert spec["parallelism"] <= count >= spec["maxFailedIndexes"]
    [container] = spec["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    [command] = container["args"]
    found = shards(command, tmp_path, "JOB_COMPLETION_INDEX", range(count))
    assert found == [f"{number}/{count}" for number in range(1, count + 1)]


def test_every_task_of_the_slurm_array_is_a_part(page: str, tmp_path: Path):
    [array, command] = re.search(r"--array=1-(\d+) .*?--wrap='(.*?)'", page, re.S).groups()
    count = int(array)
    found = shards(command, tmp_path, "SLURM_ARRAY_TASK_ID", range(1, count + 1))
    assert found == [f"{number}/{count}" for number in range(1, count + 1)]
