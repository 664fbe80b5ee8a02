"""What `TF_CONFIG` may say, and how it is refused if it is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from pipelines.train import build_parser
from tests.errors import raises
from tf_dpce.training.cluster import Cluster, read_cluster

TWO = ["a:2222", "b:2222"]


def cluster(config: object) -> Cluster | None:
    return read_cluster({"TF_CONFIG": json.dumps(config)})


def task(job: str, index: int | str) -> dict[str, object]:
    return {"type": job, "index": index}


def test_the_first_worker_is_the_chief_unless_there_is_one_of_its_own():
    found = cluster({"cluster": {"worker": TWO}, "task": task("worker", 1)})
    assert found == Cluster(("a:2222", "b:2222"), 1)
    assert found.name(0) == "worker 0 of 2 (a:2222)"
    # An index may be a string, as shells write it.
    assert cluster({"cluster": {"worker": TWO}, "task": task("worker", "1")}) == found
    jobs = {"worker": TWO, "chief": ["c:1"]}
    found = cluster({"cluster": jobs, "task": task("worker", 1)})
    assert found == Cluster(("c:1", "a:2222", "b:2222"), 2, chiefs=1)
    assert cluster({"cluster": jobs, "task": task("chief", 0)}).index == 0


def test_without_a_cluster_of_several_a_process_trains_alone():
    alone = json.dumps({"cluster": {"worker": ["a:1"]}, "task": task("worker", 0)})
    for text in ("", "  ", "{}", '{"task": {}}', '{"cluster": {}}', alone):
        assert read_cluster({"TF_CONFIG": text}) is None
    assert read_cluster({}) is None


WRONG = [
    ["a:1"],
    {"cluster": ["a:1"]},
    {"cluster": {"worker": TWO}},
    {"cluster": {"worker": TWO}, "task": {"type": "worker"}},
    {"cluster": {"worker": TWO}, "task": task("chief", 0)},
    {"cluster": {"worker": TWO}, "task": task("worker", 2)},
    {"cluster": {"worker": TWO}, "task": task("worker", -1)},
    {"cluster": {"worker": TWO}, "task": task("worker", "x")},
    {"cluster": {"worker": TWO}, "task": task("worker", float("inf"))},
    {"cluster": {"worker": TWO}, "task": task("worker", 0.7)},
    {"cluster": {"worker": "a:1"}, "task": task("worker", 0)},
    {"cluster": {"worker": ["a", "b"]}, "task": task("worker", 0)},
    {"cluster": {"worker": [1, 2]}, "task": task("worker", 0)},
    {"cluster": {"worker": ["a:1", "a:1"]}, "task": task("worker", 0)},
    {"cluster": {"worker": TWO, "ps": ["c:1"]}, "task": task("worker", 0)},
    {"cluster": {"chief": TWO}, "task": task("chief", 0)},
    {"cluster": {"worker": TWO}, "task": [["worker"], 0]},
]


def test_what_is_wrong_is_refused_with_an_example():
    for text in [*map(json.dumps, WRONG), "{cluster}"]:
        with raises("workers.tf_config") as caught:
            read_cluster({"TF_CONFIG": text})
        assert '{"cluster": ' in str(caught.value), text


def test_a_message_of_tensorflow_names_the_other_workers():
    two = Cluster(("a:1", "b:1", "c:1"), 0)
    text = "Error reported from /job:worker/task:2: call to /job:worker/replica:0/task:0 failed"
    assert two.others_in(text) == [2]
    assert Cluster(("a:1", "b:1"), 1, chiefs=1).others_in("/job:chief/replica:0/task:0") == [0]
    assert two.others_in("Socket closed") == []
    heartbeat = "Deadline Exceeded RPC: /tensorflow.CoordinationService/Heartbeat"
    assert Cluster(("a:1", "b:1"), 1).others_in(heartbeat) == [0]


# --- the page in the docs -------------------------------------------------------------------------


def said_by(script: str, folder: Path, **environment: str) -> tuple[Cluster | None, list[str]]:
    """The workers that a script of the page names, and the arguments that it gives Python."""
    hosts = "printf '%s\\n' node1 node4 node5"
    for name, line in (("scontrol", hosts), ("python", 'echo "$TF_CONFIG"; echo "$@"')):
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o755)
    answer = subprocess.run(
        ["bash", "-euc", script],
        env={"PATH": f"{folder}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert answer.returncode == 0, answer.stderr
    text, arguments = answer.stdout.splitlines()
    return read_cluster({"TF_CONFIG": text}), arguments.split()


def test_the_examples_of_the_page_are_understood(project_root: Path, tmp_path: Path):
    page = (project_root / "docs" / "distributed.md").read_text()
    kubernetes, slurm = re.findall(
        r"^```bash\n(?:# not run:[^\n]*\n)?(workers=.*?)^```$", page, re.M | re.S
    )
    found, first = said_by(kubernetes, tmp_path, WORKERS="3", JOB_COMPLETION_INDEX="2")
    assert found == Cluster(tuple(f"train-{n}.train:2222" for n in range(3)), 2)
    found, again = said_by(slurm, tmp_path, SLURM_JOB_NODELIST="node[1,4-5]", SLURM_PROCID="1")
    assert found == Cluster(("node1:2222", "node4:2222", "node5:2222"), 1)
    # A run that is there is continued, and the same command starts one that is not.
    assert again == first and first[:2] == ["-m", "pipelines.train"] and first[-1] == "--resume"
    assert build_parser(again[2:]).parse_args(again[2:])
    [text] = re.findall(r"^export TF_CONFIG='(.*)'$", page, re.M)
    assert read_cluster({"TF_CONFIG": text}) == Cluster(("10.0.0.1:2222", "10.0.0.2:2222"), 0)


def test_workers_of_other_devices_than_the_chiefs_are_refused():
    workers = Cluster(("a:1", "b:1", "c:1"), 0)
    workers.check_devices(["4 GPU(s)"] * 3)
    # As many of another kind: a machine without its driver.
    for other in ("2 GPU(s)", "4 CPU(s)"):
        with raises("workers.devices") as caught:
            workers.check_devices(["4 GPU(s)", "4 GPU(s)", other])
        line = str(caught.value)
        assert "(a:1)" in line and "(c:1)" in line and "CUDA_VISIBLE_DEVICES=-1" in line
