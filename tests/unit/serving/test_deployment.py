"""The deployment folder, and the labels in it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.unit.serving.servers import NAME, ask, publish_again, running, wait_until
from tf_dpce.errors import UserError
from tf_dpce.export.versions import MODEL_FILE
from tf_dpce.serving.deployment import (
    HOST_CONFIG_FILE,
    deployed_labels,
    promote,
    rollback,
    server_version,
    write_deployment,
)
from tf_dpce.serving.manifests import health_command
from tf_dpce.serving.model_config import read_config
from tf_dpce.serving.settings import BATCHING, GPU_BATCHING, MONITORING, server_flags

FLAGS = [
    "--model_config_file=/deployment/models.config",
    "--model_config_file_poll_wait_seconds=5",
    "--allow_version_labels_for_unavailable_models",
    "--port=8500",
    "--rest_api_port=8501",
    "--enable_batching",
    "--batching_parameters_file=/deployment/batching-cpu.config",
    "--monitoring_config_file=/deployment/monitoring.config",
    "--tensorflow_intra_op_parallelism=4",
    "--tensorflow_inter_op_parallelism=4",
]
GPU_FLAGS = [flag.replace("batching-cpu", "batching-gpu") for flag in FLAGS]


@pytest.fixture(scope="module")
def graph(exported) -> bytes:
    return (exported / MODEL_FILE).read_bytes()


def add_version(models: Path, name: str, number: int, graph: bytes) -> None:
    """A version by its graph alone, which says what exported it."""
    folder = models / name / str(number)
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_bytes(graph)


@pytest.fixture
def models(tmp_path, graph) -> Path:
    for name in ("birds", "fish"):
        add_version(tmp_path / "saved_models", name, 1, graph)
    # What is no model is passed over.
    (tmp_path / "saved_models" / "README.md").touch()
    (tmp_path / "saved_models" / "drafts").mkdir()
    return tmp_path / "saved_models"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "deployment"


def yaml_of(folder: Path, name: str) -> list:
    return list(yaml.safe_load_all((folder / name).read_text()))


# --- what is written ------------------------------------------------------------------------------


def test_it_names_its_files(models, folder):
    files = write_deployment(models, folder)
    assert sorted(str(path.relative_to(folder)) for path in files) == [
        "batching-cpu.config",
        "batching-gpu.config",
        "compose.gpu.yaml",
        "compose.yaml",
        "host/batching-cpu.config",
        "host/models.config",
        "kubernetes.gpu.yaml",
        "kubernetes.yaml",
        "models.config",
        "monitoring.config",
        "prometheus.yml",
    ]
    assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file())


def test_both_configurations_differ_in_their_paths_alone(models, folder):
    write_deployment(models, folder)
    inside, outside = read_config(folder / "models.config"), read_config(folder / HOST_CONFIG_FILE)
    for config, root in ((inside, "/models"), (outside, models.resolve())):
        birds, fish = config.model_config_list.config
        assert (birds.name, birds.base_path) == ("birds", f"{root}/birds")
        assert (fish.name, fish.base_path) == ("fish", f"{root}/fish")
        assert birds.model_platform == "tensorflow"
        assert birds.model_version_policy.HasField("all")
        assert dict(birds.version_labels) == {"stable": 1, "canary": 1}


def test_the_server_is_the_exporter_s_version(models, folder, graph, project_root):
    write_deployment(models, folder)
    requirements = (project_root / "requirements.txt").read_text()
    pin = re.search(r"^tensorflow==(.+)$", requirements, re.MULTILINE)[1]
    assert server_version(models, deployed_labels(folder)) == pin
    # An export of a later TensorFlow needs a later server, whether it has a label or not: the
    # server loads every version on disk.
    later = graph.replace(pin.encode(), b"9.9.9".ljust(len(pin), b"0"))
    add_version(models, "fish", 2, later)
    add_version(models, "fish", 3, graph)
    write_deployment(models, folder)
    assert deployed_labels(folder)["fish"] == {"stable": 1, "canary": 3}
    (compose,) = yaml_of(folder, "compose.yaml")
    image = compose["services"]["serving"]["image"]
    assert image.startswith("tensorflow/serving:${TF_SERVING:-9.9.9")


def test_the_flags_let_the_server_read_its_configuration_again():
    assert server_flags("/deployment") == FLAGS


def test_a_server_in_a_container_starts_no_more_threads_than_it_may_use(models, folder):
    # Else it counts the cores of the node: 64 batches would be decoded at once in the memory of 4.
    write_deployment(models, folder)
    assert "num_batch_threads { value: 4 }" in (folder / "batching-cpu.config").read_text()
    assert "num_batch_threads" not in (folder / "host" / "batching-cpu.config").read_text()
    (compose,) = yaml_of(folder, "compose.yaml")
    assert compose["services"]["serving"]["cpus"] == 4
    _, deployment, _ = yaml_of(folder, "kubernetes.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "8Gi"}


def test_a_batch_on_a_gpu_is_filled_up_by_less_than_half():
    # What fills it is decoded as well: 17 images are not to become 64.
    sizes = list(map(int, re.findall(r"allowed_batch_sizes: (\d+)", BATCHING[GPU_BATCHING])))
    for rows in range(1, sizes[-1] + 1):
        computed = min(size for size in sizes if size >= rows)
        assert computed < 1.5 * rows
    assert len(sizes) <= 12, "each is tuned for at its first request"


@pytest.mark.parametrize("name", BATCHING)
def test_batching_keeps_the_rules_of_the_server(name):
    # There is no proto to parse it by. Sizes rise, and the last is the largest that is run.
    text = BATCHING[name]
    known = "max_batch_size|batch_timeout_micros|max_enqueued_batches|num_batch_threads"
    known += "|enable_large_batch_splitting|max_execution_batch_size"
    for line in text.splitlines():
        assert re.fullmatch(rf"({known}) {{ value: (\d+|true) }}|allowed_batch_sizes: \d+", line)
    sizes = list(map(int, re.findall(r"allowed_batch_sizes: (\d+)", text)))
    largest = int(re.search(r"max_execution_batch_size { value: (\d+)", text)[1])
    assert sizes == sorted(set(sizes)) and sizes[-1:] in ([], [largest])


def test_monitoring_is_where_prometheus_looks(models, folder):
    write_deployment(models, folder)
    (prometheus,) = yaml_of(folder, "prometheus.yml")
    (job,) = prometheus["scrape_configs"]
    assert f'path: "{job["metrics_path"]}"' in MONITORING and "enable: true" in MONITORING
    assert job["static_configs"] == [{"targets": ["serving:8501"]}]


def test_compose_runs_the_server_on_the_loopback_address(models, folder):
    write_deployment(models, folder)
    (compose,) = yaml_of(folder, "compose.yaml")
    serving = compose["services"]["serving"]
    assert serving["command"] == FLAGS
    assert serving["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    assert serving["volumes"] == [f"${{MODELS:-{models.resolve()}}}:/models:ro", ".:/deployment:ro"]
    assert compose["services"]["prometheus"]["image"].startswith("prom/prometheus:v")
    (gpu,) = yaml_of(folder, "compose.gpu.yaml")
    assert gpu["services"]["serving"]["image"] == serving["image"] + "-gpu"
    assert gpu["services"]["serving"]["command"] == GPU_FLAGS


def test_the_image_s_health_is_that_of_every_model(models, folder):
    write_deployment(models, folder)
    (compose,) = yaml_of(folder, "compose.yaml")
    *_, command = compose["services"]["serving"]["healthcheck"]["test"]
    # As Compose reads it: two dollars are one.
    assert command.replace("$$", "$") == health_command(["birds", "fish"])


KUBERNETES = {"kubernetes.yaml": FLAGS, "kubernetes.gpu.yaml": GPU_FLAGS}


@pytest.mark.parametrize(("file", "flags"), KUBERNETES.items())
def test_kubernetes_has_probes_limits_and_the_same_configuration(models, folder, file, flags):
    write_deployment(models, folder)
    config, deployment, service = yaml_of(folder, file)
    for name, text in config["data"].items():
        assert text == (folder / name).read_text()
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == flags
    flagged = {flag.rpartition("/")[2] for flag in flags if "/deployment/" in flag}
    assert set(config["data"]) == flagged
    assert set(container["resources"]) == {"requests", "limits"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels


def test_a_pod_is_ready_when_every_model_answers_and_stays_so_under_load(models, folder):
    write_deployment(models, folder)
    _, deployment, _ = yaml_of(folder, "kubernetes.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    *_, command = container["startupProbe"]["exec"]["command"]
    assert command == health_command(["birds", "fish"])
    # A request would wait in the queue of an overloaded server, on all replicas at once.
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"] == {"port": 8500}


def test_a_pod_ends_by_sigterm_after_what_it_was_asked_is_answered(models, folder):
    write_deployment(models, folder)
    _, deployment, _ = yaml_of(folder, "kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # Not by the image's script, which passes no signal on, and not as process 1, for which a
    # signal without a handler is nothing.
    assert container["command"] == ["tensorflow_model_server"]
    assert pod["shareProcessNamespace"] is True
    _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    # A request may take 30 seconds.
    assert 30 < int(seconds) < pod["terminationGracePeriodSeconds"]


def test_a_gpu_is_asked_for_and_none_more_to_replace_a_pod(models, folder):
    write_deployment(models, folder)
    _, deployment, _ = yaml_of(folder, "kubernetes.gpu.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith("-gpu")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


# --- labels ---------------------------------------------------------------------------------------


def test_a_new_version_is_tried_promoted_and_taken_back(models, folder, graph):
    write_deployment(models, folder)
    add_version(models, "birds", 2, graph)
    write_deployment(models, folder)
    tried = {"stable": 1, "canary": 2}
    assert deployed_labels(folder) == {"birds": tried, "fish": {"stable": 1, "canary": 1}}

    assert promote(models, folder, "birds") == {"stable": 2, "canary": 2, "previous": 1}
    # Written again, the deployment keeps what the operator chose.
    add_version(models, "birds", 3, graph)
    write_deployment(models, folder)
    assert deployed_labels(folder)["birds"] == {"stable": 2, "canary": 3, "previous": 1}

    assert rollback(models, folder, "birds") == {"stable": 1, "canary": 3}
    assert deployed_labels(folder)["fish"] == {"stable": 1, "canary": 1}
    for name in ("models.config", HOST_CONFIG_FILE):
        birds, _ = read_config(folder / name).model_config_list.config
        assert dict(birds.version_labels) == {"stable": 1, "canary": 3}
    config, *_ = yaml_of(folder, "kubernetes.yaml")
    assert config["data"]["models.config"] == (folder / "models.config").read_text()


def test_the_way_back_leaves_no_label_on_the_bad_version(models, folder, graph):
    write_deployment(models, folder)
    add_version(models, "birds", 2, graph)
    write_deployment(models, folder)
    promote(models, folder, "birds")
    assert rollback(models, folder, "birds") == {"stable": 1, "canary": 1}


def test_labels_stay_where_they_are_if_the_newest_is_not_to_be_tried(models, folder, graph):
    write_deployment(models, folder, try_newest=False)
    add_version(models, "birds", 2, graph)
    add_version(models, "cats", 4, graph)
    write_deployment(models, folder, try_newest=False)
    assert deployed_labels(folder) == {
        "birds": {"stable": 1, "canary": 1},
        "cats": {"stable": 4, "canary": 4},
        "fish": {"stable": 1, "canary": 1},
    }


def break_version(folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes(b"no graph")


@pytest.mark.parametrize("spoil", [break_version, shutil.rmtree])
def test_the_way_back_is_open_whatever_became_of_the_bad_version(models, folder, graph, spoil):
    write_deployment(models, folder)
    add_version(models, "birds", 2, graph)
    write_deployment(models, folder)
    promote(models, folder, "birds")
    spoil(models / "birds" / "2")
    assert rollback(models, folder, "birds") == {"stable": 1, "canary": 1}
    _, deployment, _ = yaml_of(folder, "kubernetes.yaml")
    assert "birds" in str(deployment)


@pytest.mark.parametrize("spoil", [break_version, shutil.rmtree])
def test_a_stable_version_that_is_lost_falls_back_to_the_one_before(models, folder, graph, spoil):
    write_deployment(models, folder)
    add_version(models, "birds", 2, graph)
    write_deployment(models, folder)
    promote(models, folder, "birds")
    spoil(models / "birds" / "2")
    write_deployment(models, folder)
    assert deployed_labels(folder)["birds"] == {"stable": 1, "canary": 1}


@pytest.mark.parametrize(
    ("lost", "left"),
    [
        # Of version 2, which is stable, and of what is tried, version 3.
        ("3", {"stable": 2, "canary": 2, "previous": 1}),
        ("2", {"stable": 1, "canary": 3}),
        ("1", {"stable": 2, "canary": 3}),
        # A folder that is away as a whole may be back; the server still has the versions.
        ("", {"stable": 2, "canary": 3, "previous": 1}),
    ],
)
def test_another_model_that_is_damaged_stops_nobody(models, folder, graph, lost, left):
    write_deployment(models, folder)
    for number in (2, 3):
        for name in ("birds", "fish"):
            add_version(models, name, number, graph)
        write_deployment(models, folder)
        if number == 2:
            promote(models, folder, "birds")
            promote(models, folder, "fish")
    shutil.rmtree(models / "fish" / lost)
    assert promote(models, folder, "birds") == {"stable": 3, "canary": 3, "previous": 2}
    # TF Serving takes no configuration over that has a label on a version that is gone.
    assert deployed_labels(folder)["fish"] == left
    assert rollback(models, folder, "birds") == {"stable": 2, "canary": 2}


def test_what_is_no_version_is_passed_over(models, folder, graph):
    # TF Serving counts in int64; `export` writes no leading zero.
    for name in ("9223372036854775808", "007"):
        add_version(models / "birds", name, 0, graph)
    (models / "birds" / "9").touch()
    (models / "birds" / "8").mkdir()
    write_deployment(models, folder)
    assert deployed_labels(folder)["birds"] == {"stable": 1, "canary": 1}


def test_labels_that_somebody_else_wrote_are_kept_or_told(models, folder, graph):
    write_deployment(models, folder)
    config = folder / "models.config"
    written = config.read_text()
    config.write_text(written.replace("stable", "prod").replace("canary", "test"))
    for work in (promote, rollback):
        with pytest.raises(UserError, match=r"models.config gives birds no label stable: remove"):
            work(models, folder, "birds")
    with pytest.raises(UserError, match=r"models.config gives birds no label stable: remove"):
        write_deployment(models, folder)

    config.write_text(written.replace("canary", "prod"))
    add_version(models, "birds", 2, graph)
    write_deployment(models, folder)
    assert deployed_labels(folder)["birds"] == {"stable": 1, "canary": 2, "prod": 1}
    promote(models, folder, "birds")
    kept = {"stable": 2, "canary": 2, "previous": 1, "prod": 1}
    assert deployed_labels(folder)["birds"] == kept


def test_what_cannot_be_moved_is_told(models, folder, graph):
    with pytest.raises(UserError, match="does not exist: make it with `serve --write`"):
        promote(models, folder, "birds")
    write_deployment(models, folder)
    with pytest.raises(UserError, match="birds has nothing to promote, version 1 is stable"):
        promote(models, folder, "birds")
    with pytest.raises(UserError, match="birds has no version to go back to"):
        rollback(models, folder, "birds")
    with pytest.raises(UserError, match="no model 'cats': it has birds, fish"):
        promote(models, folder, "cats")
    with pytest.raises(UserError, match="no model '': it has birds, fish"):
        rollback(models, folder, "")
    add_version(models, "birds", 2, graph)
    write_deployment(models, folder)
    promote(models, folder, "birds")
    shutil.rmtree(models / "birds" / "1")
    with pytest.raises(UserError, match=r"birds/1 is no exported version"):
        rollback(models, folder, "birds")
    shutil.rmtree(models / "birds" / "2")
    add_version(models, "birds", 3, graph)
    with pytest.raises(UserError, match="version 2 of birds is stable, but is gone"):
        write_deployment(models, folder)


def test_models_that_are_none_are_told(tmp_path, folder, graph):
    for models in (tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match="holds no model NAME/INTEGER: make one with `export`"):
            write_deployment(models, folder)
    add_version(tmp_path, "birds", 1, b"no graph")
    with pytest.raises(UserError, match=r"birds/1 is no exported version"):
        write_deployment(tmp_path, folder)
    add_version(tmp_path, "it's", 1, graph)
    with pytest.raises(UserError, match=r"it's: name a model by letters, digits and - _ . alone"):
        write_deployment(tmp_path, folder)


WRITE = """
import sys
from pathlib import Path
from tf_dpce.serving.deployment import promote, rollback, write_deployment
models, folder = map(Path, sys.argv[1:])
print("ready", flush=True)
while True:
    write_deployment(models, folder)
    promote(models, folder, "birds")
    rollback(models, folder, "birds")
"""


def test_a_reader_never_sees_half_a_file_nor_does_a_kill_leave_one(
    models, folder, graph, project_root
):
    write_deployment(models, folder)
    add_version(models, "birds", 2, graph)
    write_deployment(models, folder)
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    command = [sys.executable, "-c", WRITE, str(models), str(folder)]
    process = subprocess.Popen(command, cwd=project_root, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    seen = set()
    deadline = time.monotonic() + 30
    while len(seen) < 2 and time.monotonic() < deadline:
        seen.add(deployed_labels(folder)["birds"]["stable"])
        read_config(folder / HOST_CONFIG_FILE)
        assert len(yaml_of(folder, "kubernetes.yaml")) == 3
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert seen == {1, 2}
    # What it left aside goes away with the next command, which works as ever.
    write_deployment(models, folder)
    assert sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file()) == sorted(names)


KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from tf_dpce import files
from tf_dpce.serving.deployment import promote, rollback
models, start, work = Path(sys.argv[1]), Path(sys.argv[2]), globals()[sys.argv[3]]
replace = os.replace
def killed(folder, count):
    # Before the file of this number is put in its place, or after all.
    def counted(source, target):
        nonlocal count
        count -= 1
        if count < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    child = os.fork()
    if not child:
        files.os.replace = counted
        work(models, folder, "birds")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
for place in sys.argv[4:]:
    killed(Path(shutil.copytree(start, f"{start}-{place}")), int(place))
"""


@pytest.mark.parametrize(("work", "before", "after"), [("promote", 1, 2), ("rollback", 2, 1)])
def test_a_label_has_moved_or_not_whenever_its_command_is_killed(
    models, folder, graph, project_root, work, before, after
):
    write_deployment(models, folder)
    add_version(models, "birds", 2, graph)
    files = write_deployment(models, folder)
    if work == "rollback":
        promote(models, folder, "birds")
    places = {0: before, len(files) // 2: before, len(files) - 1: before, len(files): after}
    command = [sys.executable, "-c", KILLED, str(models), str(folder), work, *map(str, places)]
    subprocess.run(command, cwd=project_root, check=True)
    for place, stable in places.items():
        left = folder.with_name(f"{folder.name}-{place}")
        assert deployed_labels(left)["birds"]["stable"] == stable
        assert len(yaml_of(left, "kubernetes.yaml")) == 3
        if stable == before:
            {"promote": promote, "rollback": rollback}[work](models, left, "birds")
        assert deployed_labels(left)["birds"]["stable"] == after
        found = [path for path in left.rglob("*") if path.is_file()]
        # What was left aside after the last one goes with the next command.
        assert len(found) == len(files)


# --- a server that reads it -----------------------------------------------------------------------


def test_a_running_server_follows_promote_and_rollback(exported, tmp_path):
    models, folder = tmp_path / "saved_models", tmp_path / "deployment"
    shutil.copytree(exported.parent, models / NAME)
    with running("development", models, folder) as served:
        probe = ["bash", "-c", health_command([NAME], served.rest_port)]
        assert subprocess.run(probe).returncode == 0
        # One model that does not answer is enough to fail.
        for names in ([NAME, "cats"], ["cats", NAME]):
            lacking = ["bash", "-c", health_command(names, served.rest_port)]
            assert subprocess.run(lacking).returncode != 0

        def stable() -> int:
            code, answer = ask(served.rest_port, f"/v1/models/{NAME}/labels/stable/metadata")
            assert code == 200, "the label answers at every moment"
            return int(answer["model_spec"]["version"])

        publish_again(models)
        write_deployment(models, folder)
        assert stable() == 1
        promote(models, folder, NAME)
        wait_until(lambda: stable() == 2)
        rollback(models, folder, NAME)
        wait_until(lambda: stable() == 1)
    assert subprocess.run(probe, capture_output=True).returncode != 0
